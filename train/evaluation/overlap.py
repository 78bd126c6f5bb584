"""What pictures that the corpus shows do to the accuracy on an evaluation set (CLIP, section 5).

A set is split in two: Overlap, the pictures that the corpus shows, and Clean, the others. How much
better a model is on Overlap than on Clean, and on All than on Clean, is what it may owe to having seen them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.intervals import at_least, clopper_pearson

CONFIDENCE: Final = 0.995
"""Of the intervals, as in the paper."""

SIGNIFICANCE: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Pictures of one set, and those of them whose class was found."""

    evalset: str
    overlap: int
    overlap_hits: int
    clean: int
    clean_hits: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All sets together.

    Attributes:
        sets: sets analysed.
        without_overlap: those of them of which the corpus shows no picture.
        tested: those that have pictures of both kinds.
        median_share, mean_share: of `overlap_share` over all sets.
        above, below: sets whose interval of the difference lies above 0, or below.
        significant: sets whose p-value is below SIGNIFICANCE.
        significant_bonferroni: those of them that remain when it is multiplied by `tested`.
    """

    sets: int
    without_overlap: int
    tested: int
    median_share: float
    mean_share: float
    above: int
    below: int
    significant: int
    significant_bonferroni: int


def count_hits(
    predictions: pa.Table, overlapping: Mapping[str, Iterable[str]], evalsets: Sequence[str]
) -> list[Counts]:
    """Return the counts of each of `evalsets`, in their order.

    Args:
        predictions: with the columns evalset, item and rank of PREDICTIONS.
        overlapping: by set, items that the corpus shows; those that were not evaluated do not count.
    """
    counts = []
    for evalset in evalsets:
        of_set = predictions.filter(pc.equal(predictions.column("evalset"), evalset))
        shown = pa.array(sorted(set(overlapping.get(evalset, ()))), pa.string())
        is_shown = pc.is_in(of_set.column("item"), shown)
        hits = pc.equal(of_set.column("rank"), 1)
        overlap, overlap_hits = _true(is_shown), _true(pc.and_(is_shown, hits))
        counts.append(
            Counts(
                evalset=evalset,
                overlap=overlap,
                overlap_hits=overlap_hits,
                clean=len(of_set) - overlap,
                clean_hits=_true(hits) - overlap_hits,
            )
        )
    return counts


def analyse(counts: Sequence[Counts]) -> pa.Table:
    """Return OVERLAP_ACCURACY of sets that have at least one picture each.

    Without overlap there is nothing to test and All is Clean; without clean pictures there is nothing
    to compare with. Such columns are null.
    """
    tested = sum(1 for one in counts if one.overlap and one.clean)
    return pa.Table.from_pylist(
        [_row(one, tested) for one in counts], schema=schemas.OVERLAP_ACCURACY
    )


def summarise(table: pa.Table) -> Summary:
    """Return what OVERLAP_ACCURACY of at least one set amounts to."""
    rows = table.to_pylist()
    shares = [row["overlap_share"] for row in rows]
    tested = [row for row in rows if row["p_value"] is not None]
    return Summary(
        sets=len(rows),
        without_overlap=sum(not row["overlap_images"] for row in rows),
        tested=len(tested),
        median_share=median(shares),
        mean_share=fmean(shares),
        above=sum(row["difference_low"] > 0 for row in tested),
        below=sum(row["difference_high"] < 0 for row in tested),
        significant=sum(row["p_value"] < SIGNIFICANCE for row in tested),
        significant_bonferroni=sum(row["p_bonferroni"] < SIGNIFICANCE for row in tested),
    )


def _row(one: Counts, tested: int) -> dict[str, Any]:
    images = one.overlap + one.clean
    share = one.overlap / images
    accuracy = (one.overlap_hits + one.clean_hits) / images
    row = {
        "evalset": one.evalset,
        "images": images,
        "overlap_images": one.overlap,
        "overlap_share": share,
        "accuracy": accuracy,
    }
    if not one.clean:
        return row | {"overlap_accuracy": one.overlap_hits / one.overlap}
    clean = one.clean_hits / one.clean
    row |= {"clean_accuracy": clean, "gain": accuracy - clean}
    if not one.overlap:
        return row
    ends = clopper_pearson(one.overlap_hits, one.overlap, CONFIDENCE)
    low, high = (end - clean for end in ends)
    p_value = at_least(one.overlap_hits, one.overlap, clean)
    overlap = one.overlap_hits / one.overlap
    return row | {
        "overlap_accuracy": overlap,
        "difference": overlap - clean,
        "difference_low": low,
        "difference_high": high,
        "gain_low": share * low,
        "gain_high": share * high,
        "p_value": p_value,
        "p_bonferroni": min(1.0, tested * p_value),
    }


def _true(column: Any) -> int:
    return int(pc.sum(column).as_py() or 0)


def as_plain(table: pa.Table) -> dict[str, Any]:
    """Return rows and summary as JSON takes them."""
    return {
        "confidence": CONFIDENCE,
        "sets": table.to_pylist(),
        "summary": asdict(summarise(table)),
    }
