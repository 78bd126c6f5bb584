"""Tables of duplicates and evaluation overlap."""

import pyarrow as pa

from pipeline.schemas.columns import column
from pipeline.schemas.image_tables import DOWNLOADED

DEDUPLICATED = DOWNLOADED

DUPLICATES = pa.schema(
    [
        column("pair_id", pa.string(), "the pair whose picture is another's"),
        column("duplicate_of", pa.string(), "the pair that stays with the picture"),
        column(
            "method",
            pa.string(),
            "same_url, same_bytes, same_pixels, near_duplicate (by PDQ) or similar (by embeddings)",
        ),
        column(
            "distance",
            pa.float64(),
            "near_duplicate: differing PDQ bits; similar: 1 - cosine; 0 for the exact methods",
        ),
        column(
            "stays", pa.bool_(), "whether it stays nonetheless, as another caption of the picture"
        ),
    ]
)

EMBEDDINGS = pa.schema(
    [
        column("pair_id", pa.string(), "the pair whose stored image it is of"),
        column("embedding", pa.list_(pa.float16()), "of unit length; as long for every pair"),
    ]
)

EVALUATION_PICTURES = pa.schema(
    [
        column("evalset", pa.string(), "name of the evaluation set"),
        column("item", pa.string(), "picture within the set, such as its path"),
        column("split", pa.string(), "train, test, ...; empty where the set has none"),
        column("label", pa.string(), "readable name of its class", nullable=True),
        column("captions", pa.list_(pa.string()), "what the set says of the picture"),
        column(
            "image_sha256",
            pa.string(),
            "of its bytes, hex; null where the set holds pixels instead of a file",
            nullable=True,
        ),
        column(
            "pixel_hash",
            pa.string(),
            "xxh3-128 of width, height and the decoded RGB pixels, hex",
            nullable=True,
        ),
        column("pdq", pa.binary(32), "PDQ perceptual hash", nullable=True),
        column("pdq_mirrored", pa.binary(32), "of the picture's mirror image", nullable=True),
        column("pdq_quality", pa.int32(), "PDQ's own measure, 0 to 100", nullable=True),
        column(
            "embedding",
            pa.list_(pa.float16()),
            "of unit length, by the model that was named",
            nullable=True,
        ),
        column(
            "refused",
            pa.string(),
            "why the picture cannot be decoded; then all hashes but image_sha256 are null",
            nullable=True,
        ),
    ]
)

EVAL_OVERLAPS = pa.schema(
    [
        column("pair_id", pa.string(), "the corpus pair"),
        column("evalset", pa.string(), "name of the evaluation set"),
        column("split", pa.string(), "split of the evaluation picture; empty without splits"),
        column("item", pa.string(), "evaluation picture within the set, such as its path"),
        column(
            "method",
            pa.string(),
            "same_bytes, same_pixels, near_duplicate, mirrored, embedding or caption",
        ),
        column(
            "distance",
            pa.float64(),
            "differing PDQ bits; embedding: 1 - cosine; caption: share of its words' runs that are "
            "not found; 0 for equality",
        ),
    ]
)

CALIBRATION = pa.schema(
    [
        column("evalset", pa.string(), "set whose pictures were edited"),
        column("against", pa.string(), "set of the unrelated pictures"),
        column(
            "method",
            pa.string(),
            "pdq, upright alone; pdq_mirrored, either way round; embedding; or together, which is either "
            "of the last two",
        ),
        column("edit", pa.string(), "what was done to the copies"),
        column(
            "max_distance",
            pa.int32(),
            "differing PDQ bits up to which pictures count as copies",
            nullable=True,
        ),
        column(
            "min_similarity",
            pa.float64(),
            "cosine of embeddings from which they do",
            nullable=True,
        ),
        column("copies", pa.int64(), "edited copies"),
        column("found", pa.int64(), "those of them that count as copies"),
        column("recall", pa.float64(), "found / copies"),
        column("recall_low", pa.float64(), "lower end of the 95% Clopper-Pearson interval"),
        column("recall_high", pa.float64(), "upper end"),
        column("unrelated", pa.int64(), "pairs of unrelated pictures, unedited"),
        column(
            "false_alarms",
            pa.int64(),
            "those of them that count as copies; together: those of both methods, summed",
        ),
        column("per_million", pa.float64(), "false_alarms in a million of unrelated"),
        column(
            "per_million_high",
            pa.float64(),
            "upper 95% Clopper-Pearson bound of it; null from 10,000 false alarms on",
            nullable=True,
        ),
        column(
            "edited_unrelated",
            pa.int64(),
            "pairs of a copy under this edit and the original of another",
        ),
        column("edited_false_alarms", pa.int64(), "those of them that count as copies"),
    ]
)
