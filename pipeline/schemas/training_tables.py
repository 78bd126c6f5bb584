"""Tables of training and evaluation."""

import pyarrow as pa

from pipeline.schemas.columns import column

TRAINING_STEPS = pa.schema(
    [
        column("step", pa.int64(), "optimiser steps taken, from 1"),
        column("epoch", pa.int64(), "passes over the shards begun, from 0"),
        column("samples", pa.int64(), "samples seen so far"),
        column("loss", pa.float64(), "contrastive loss of the step's batch, nats"),
        column("logit_scale", pa.float64(), "inverse temperature of that loss"),
        column("learning_rate", pa.float64(), "used for the step"),
        column(
            "gradient_norm",
            pa.float64(),
            "before it was limited; not finite where fp16 skipped a step",
        ),
    ]
)

TRAINING_EVALUATIONS = pa.schema(
    [
        column("step", pa.int64(), "optimiser steps taken"),
        column("samples", pa.int64(), "samples seen so far"),
        column("evalset", pa.string(), "name of the evaluation set"),
        column("weights", pa.string(), "trained, or averaged over the steps"),
        column("top1", pa.float64(), "share of pictures whose own class is the most similar"),
        column("images", pa.int64(), "pictures evaluated"),
        column("classes", pa.int64(), "classes to choose from"),
        column("broken", pa.int64(), "pictures that cannot be decoded, left out"),
    ]
)

EVALUATIONS = pa.schema(
    [
        column("evalset", pa.string(), "name of the evaluation set"),
        column("head", pa.string(), "what measured: zero_shot, linear_probe, few_shot, retrieval, fine_tuned, robustness"),
        column("variant", pa.string(), "which of the head's results: templates of zero_shot, shots of few_shot, corruption; empty where there is one"),
        column("metric", pa.string(), "top1, top5, mean_per_class or one of the head's own"),
        column("value", pa.float64(), "0 to 1; a difference may lie below"),
        column("low", pa.float64(), "lower end of the 95% interval: of top1 and top5 Clopper-Pearson's", nullable=True),
        column("high", pa.float64(), "upper end", nullable=True),
        column("chance", pa.float64(), "expected of a guess"),
        column("images", pa.int64(), "pictures evaluated"),
        column("classes", pa.int64(), "classes, or of retrieval captions or pictures, to choose from"),
    ]
)  # fmt: skip

PREDICTIONS = pa.schema(
    [
        column("evalset", pa.string(), "name of the evaluation set"),
        column("head", pa.string(), "see EVALUATIONS"),
        column("variant", pa.string(), "see EVALUATIONS"),
        column("split", pa.string(), "such as test; empty where the set has none"),
        column("item", pa.string(), "file of the picture within the set"),
        column("label", pa.string(), "its true class"),
        column("predicted", pa.string(), "class with the highest score"),
        column("rank", pa.int32(), "rank of the true class, from 1"),
    ]
)

CLASS_RESULTS = pa.schema(
    [
        column("evalset", pa.string(), "name of the evaluation set"),
        column("head", pa.string(), "see EVALUATIONS"),
        column("variant", pa.string(), "see EVALUATIONS"),
        column("label", pa.string(), "class"),
        column("images", pa.int64(), "its pictures"),
        column("value", pa.float64(), "share of them that were found to be of it"),
        column("low", pa.float64(), "lower end of the 95% Clopper-Pearson interval"),
        column("high", pa.float64(), "upper end"),
        column("taken_for", pa.string(), "class that they were most often taken for instead", nullable=True),
        column("taken_for_images", pa.int64(), "pictures of which that holds"),
    ]
)  # fmt: skip

CONFUSIONS = pa.schema(
    [
        column("evalset", pa.string(), "name of the evaluation set"),
        column("head", pa.string(), "see EVALUATIONS"),
        column("variant", pa.string(), "see EVALUATIONS"),
        column("label", pa.string(), "true class"),
        column("predicted", pa.string(), "class that it was taken for"),
        column("images", pa.int64(), "pictures of which that holds"),
        column("share", pa.float64(), "of all pictures of the true class"),
    ]
)
