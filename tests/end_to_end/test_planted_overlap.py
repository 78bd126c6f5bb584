from dataclasses import replace
from pathlib import Path

from benchmarks.planted_overlap import PHOTOGRAPHS, TINY, plant, read_source
from pipeline.pictures.images import decode, pdq
from pipeline.runtime.executor import InlineExecutor

EDITS = ("jpeg 70", "half size", "flip", "grey", "brighter 30%", "blur", "noise", "watermark")
EDITS_OF_TINY = ("jpeg 90", "jpeg 70", "flip")


def test_planted_copies_are_found_and_named_and_nothing_else_is(
    shared_data: Path, tmp_path: Path
) -> None:
    source = read_source(shared_data, photographs=30, tiny=40, fillers=680)
    # One in a hundred is too flat for PDQ, and found by exact tests alone.
    tiny = {n: d for n, d in source.evaluation[TINY].items() if pdq(decode(d).rgb)[1] >= 50}
    source = replace(source, evaluation={**source.evaluation, TINY: tiny})
    thresholds = {PHOTOGRAPHS: "max_distance = 47", TINY: "max_distance = 47"}
    for name, edits in ((PHOTOGRAPHS, EDITS), (TINY, EDITS_OF_TINY)):
        scores = plant(
            tmp_path / name, source, 48, InlineExecutor(), thresholds=thresholds, edits=edits
        )
        assert scores[name].missed == ()
        assert scores[name].named == scores[name].planted >= 16
        assert [one.others for one in scores.values()] == [(), ()]
