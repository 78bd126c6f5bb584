"""What `witmill overlap` writes."""

import pyarrow as pa

from pipeline.schemas.columns import column

OVERLAP_ACCURACY = pa.schema(
    [
        column("evalset", pa.string(), "name of the evaluation set"),
        column("images", pa.int64(), "pictures evaluated"),
        column("overlap_images", pa.int64(), "those of them that the corpus shows"),
        column("overlap_share", pa.float64(), "overlap_images / images"),
        column("accuracy", pa.float64(), "share of all pictures whose class is found"),
        column("clean_accuracy", pa.float64(), "of those not in the corpus", nullable=True),
        column("overlap_accuracy", pa.float64(), "of those in it", nullable=True),
        column("difference", pa.float64(), "overlap_accuracy - clean_accuracy", nullable=True),
        column(
            "difference_low",
            pa.float64(),
            "lower end of the Clopper-Pearson interval of overlap_accuracy, less clean_accuracy",
            nullable=True,
        ),
        column("difference_high", pa.float64(), "upper end, likewise", nullable=True),
        column(
            "gain",
            pa.float64(),
            "accuracy - clean_accuracy: what the overlap adds, overlap_share times the difference",
            nullable=True,
        ),
        column("gain_low", pa.float64(), "overlap_share times difference_low", nullable=True),
        column("gain_high", pa.float64(), "overlap_share times difference_high", nullable=True),
        column(
            "p_value",
            pa.float64(),
            "chance of overlap_accuracy or more, were it clean_accuracy in truth (one-sided binomial test)",
            nullable=True,
        ),
        column(
            "p_bonferroni",
            pa.float64(),
            "p_value times the sets tested, at most 1",
            nullable=True,
        ),
    ]
)
