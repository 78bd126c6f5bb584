"""Tables of training and evaluation."""

import pyarrow as pa

from pipeline.schemas.columns import column

TRAINING_STEPS = pa.schema(
    [
        column("step", pa.int64(), "optimiser steps taken, from 1"),
        column("epoch", pa.int64(), "passes over the shards begun, from 0"),
        column("samples", pa.int64(), "samples seen so far"),
        column("loss", pa.float64(), "symmetric contrastive loss of the step's batch, nats"),
        column("logit_scale", pa.float64(), "inverse temperature after the step"),
        column("learning_rate", pa.float64(), "used for the step"),
    ]
)

EVALUATIONS = pa.schema(
    [
        column("evalset", pa.string(), "name of the evaluation set"),
        column("metric", pa.string(), "top1, top5 or mean_per_class"),
        column("value", pa.float64(), "0 to 1"),
        column("low", pa.float64(), "lower end of the 95% Clopper-Pearson interval", nullable=True),
        column("high", pa.float64(), "upper end", nullable=True),
        column("chance", pa.float64(), "expected of a guess"),
        column("images", pa.int64(), "pictures evaluated"),
        column("classes", pa.int64(), "classes to choose from"),
    ]
)

PREDICTIONS = pa.schema(
    [
        column("evalset", pa.string(), "name of the evaluation set"),
        column("item", pa.string(), "file of the picture within the set"),
        column("label", pa.string(), "its true class"),
        column("predicted", pa.string(), "class with the highest similarity"),
        column("rank", pa.int32(), "rank of the true class, from 1"),
    ]
)
