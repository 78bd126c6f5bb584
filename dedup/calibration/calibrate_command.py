"""The command `witmill dedup calibrate`: prove on a set that edited copies of its pictures are found."""

from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from dedup.evaluation.evalsets import EvalSet, read_evalsets
from pipeline.errors import ConfigError
from pipeline.runtime import storage
from pipeline.runtime.executor import make_executor

if TYPE_CHECKING:
    from dedup.calibration.calibrate import Measured, Thresholds


def calibrate(
    pictures: str,
    *,
    evalsets: str = "",
    against: str = "",
    model: str = "",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    sample: int = 600,
    unrelated: int = 10_000,
    budget: float = 1.0,
    min_quality: int = 50,
    same: str = "",
    output: Annotated[str, Parameter(name=["--output", "-o"])] = "",
    executor: Annotated[
        Literal["local", "ray"],
        Parameter(help="processes on this machine (the default), or a Ray cluster"),
    ] = "local",
    workers: Annotated[
        int | None, Parameter(help="processes; default: one per core; 0: in this process")
    ] = None,
) -> int:
    """Measure how many edited copies of a set's pictures are found, and how many false alarms that costs.

    Edits a sample of the pictures in 24 ways, compares the copies with the originals and unrelated
    pictures with each other, and proposes thresholds. Writes calibration.parquet, recall.png,
    thresholds.toml, closest.csv and the contact sheets hits.png, near_misses.png and false_alarms.png.

    Example: `witmill dedup calibrate photographs.tar --model efficientnet-lite0`

    Example: `witmill dedup calibrate cifar10 --evalsets evalsets.toml --against photographs.tar`

    Args:
        pictures: a set of --evalsets by name; else a file or folder of pictures in any layout of a set.
        evalsets: TOML file that names sets.
        against: set, file or folder of unrelated pictures; default: the set's own, each with each.
        model: embedding model: efficientnet-lite0, or a file, see docs/embeddings.md; default: PDQ alone.
        device: where to embed; auto: cuda where there is one.
        sample: pictures to edit, up to 5,000.
        unrelated: pictures of either side to look for false alarms in, at most.
        budget: false alarms per million pairs that the proposed thresholds may cost.
        min_quality: PDQ quality below which pictures are not compared by PDQ, as in `dedup`.
        same: CSV file of pairs that are the same picture after all, with columns item and other.
        output: folder to write; default: calibration/NAME.
    """
    _check(sample=sample, unrelated=unrelated, budget=budget)
    sets = read_evalsets(evalsets) if evalsets else ()
    evalset = _find(pictures, sets)
    other = _find(against, sets) if against else None
    from dedup.calibration.calibrate import measure, propose

    with closing(make_executor(executor, workers=workers)) as chosen:
        measured = measure(
            evalset,
            other,
            chosen,
            sample=sample,
            unrelated=unrelated,
            model=model,
            device=device,
            min_quality=min_quality,
            same=same,
        )
    thresholds = propose(measured.unrelated, budget)
    folder = output or storage.join("calibration", evalset.name)
    _write(measured, thresholds, evalset, other or evalset, folder, budget)
    from dedup.calibration.calibration_report import print_report

    print_report(measured, thresholds, budget)
    print(f"\nin {folder}: look at false_alarms.png, near_misses.png and hits.png")
    return 0


def _write(
    measured: "Measured",
    thresholds: "Thresholds",
    evalset: EvalSet,
    against: EvalSet,
    folder: str,
    budget: float,
) -> None:
    import pyarrow.parquet as pq

    from dedup.calibration import calibration_plot, contact_sheets
    from dedup.calibration.calibrate import closest_csv, tabulate
    from dedup.calibration.calibration_report import toml_lines

    table = tabulate(measured, evalset.name, against.name)
    with storage.atomic_output(storage.join(folder, "calibration.parquet")) as file:
        pq.write_table(table, file, compression="zstd")
    lines = "\n".join([f"[{evalset.name}]", *toml_lines(measured, thresholds, budget)])
    files = {
        "closest.csv": closest_csv(measured),
        "thresholds.toml": f"{lines}\n".encode(),
        "recall.png": calibration_plot.draw(table),
        "hits.png": contact_sheets.draw_hits(measured, evalset, thresholds),
        "near_misses.png": contact_sheets.draw_near_misses(measured, evalset, thresholds),
        "false_alarms.png": contact_sheets.draw_false_alarms(
            measured, evalset, against, thresholds
        ),
    }
    for name, data in files.items():
        storage.write_bytes(storage.join(folder, name), data)


def _find(name: str, sets: tuple[EvalSet, ...]) -> EvalSet:
    """Return the set of that name, or what lies at that path."""
    for evalset in sets:
        if evalset.name == name:
            return evalset
    if storage.exists(name):
        stem = name.rstrip("/").rpartition("/")[2].partition(".")[0]
        plain = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in stem)
        return EvalSet(name=plain.lstrip("-") or "pictures", path=name)
    known = f" and none of the sets {', '.join(evalset.name for evalset in sets)}" if sets else ""
    raise ConfigError(
        f"{name} is no file or folder{known}; expected one, or a set that --evalsets names"
    )


def _check(*, sample: int, unrelated: int, budget: float) -> None:
    if not 1 <= sample <= 5000:
        raise ConfigError(f"sample is {sample}, expected 1 to 5000")
    if unrelated < 2:
        raise ConfigError(f"unrelated is {unrelated}, expected 2 or more")
    if not 0 <= budget <= 1000:
        raise ConfigError(f"budget is {budget}, expected 0 to 1000 false alarms per million pairs")
