"""Arrow schemas: the only contract between stages.

Each stage's main table is `W/STAGE/*.parquet`; a side table is `W/STAGE/TABLE/*.parquet`.
"""

from pipeline.schemas.balance_tables import (
    BALANCE_SUMMARY,
    BALANCED,
    CAP,
    QUERY_COUNTS,
    QUERY_DISTRIBUTION,
)
from pipeline.schemas.columns import check
from pipeline.schemas.duplicate_tables import (
    CALIBRATION,
    DEDUPLICATED,
    DUPLICATES,
    EMBEDDINGS,
    EVAL_OVERLAPS,
    EVALUATION_PICTURES,
)
from pipeline.schemas.image_tables import DOWNLOADED, HOST_ANSWERS, ROBOTS, WORST_HOSTS
from pipeline.schemas.overlap_tables import OVERLAP_ACCURACY
from pipeline.schemas.pair_tables import (
    CAPTIONS,
    CAPTURES,
    DROPS,
    LANGUAGES,
    MATCHES,
    PAIRS,
    SOURCE_KEYS,
)
from pipeline.schemas.query_tables import (
    PAGE_VIEWS,
    QUERIES,
    QUERY_CANDIDATES,
    QUERY_RECORD,
    WIKIPEDIA_BIGRAMS,
    WIKIPEDIA_PAGES,
    WIKIPEDIA_WORDS,
)
from pipeline.schemas.shard_tables import REMOVALS, REMOVED, SAMPLE, SHARD_INDEX, SHARDS
from pipeline.schemas.training_tables import (
    CLASS_RESULTS,
    CONFUSIONS,
    EVALUATIONS,
    PREDICTIONS,
    TRAINING_EVALUATIONS,
    TRAINING_STEPS,
)

__all__ = [
    "BALANCED",
    "BALANCE_SUMMARY",
    "CALIBRATION",
    "CAP",
    "CAPTIONS",
    "CAPTURES",
    "CLASS_RESULTS",
    "CONFUSIONS",
    "DEDUPLICATED",
    "DOWNLOADED",
    "DROPS",
    "DUPLICATES",
    "EMBEDDINGS",
    "EVALUATIONS",
    "EVALUATION_PICTURES",
    "EVAL_OVERLAPS",
    "HOST_ANSWERS",
    "LANGUAGES",
    "MATCHES",
    "OVERLAP_ACCURACY",
    "PAGE_VIEWS",
    "PAIRS",
    "PREDICTIONS",
    "QUERIES",
    "QUERY_CANDIDATES",
    "QUERY_COUNTS",
    "QUERY_DISTRIBUTION",
    "QUERY_RECORD",
    "REMOVALS",
    "REMOVED",
    "ROBOTS",
    "SAMPLE",
    "SHARDS",
    "SHARD_INDEX",
    "SOURCE_KEYS",
    "TRAINING_EVALUATIONS",
    "TRAINING_STEPS",
    "WIKIPEDIA_BIGRAMS",
    "WIKIPEDIA_PAGES",
    "WIKIPEDIA_WORDS",
    "WORST_HOSTS",
    "check",
]
