"""Hide edited evaluation pictures among corpus pictures; see whether `dedup` finds those and no others.

Evaluation sets are photographs and tiny pictures of the real data (`WITMILL_DATA`); the corpus is other
photographs, other tiny pictures, and copies of evaluation pictures, each under one of `dedup.calibration.edits`.
CIFAR-10 has pictures that stand in its train and its test set, more or less the same: what is found
beyond the planted is listed, to be looked at.
"""

import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from dedup.calibration.edits import EDITS, make_copy
from dedup.deduplicate import DedupConfig, run
from pipeline import schemas
from pipeline.download import DownloadConfig
from pipeline.pictures.examine import examine
from pipeline.pictures.images import decode
from pipeline.pictures.tar import TarWriter
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor, make_executor
from pipeline.runtime.manifest import Outcome
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import TaskOutput, begin
from pipeline.runtime.workspace import Workspace

PART_ROWS = 5_000
PHOTOGRAPHS, TINY = "photographs", "cifar10"


class Planted(Settings):
    """Settings of a made-up download."""

    planted: int
    fillers: int


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of the corpus; `copy_of` is the set and item that it was made from, `edit` how."""

    name: str
    data: bytes
    copy_of: tuple[str, str] | None = None
    edit: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Pictures by name: those of the evaluation sets, and others to fill the corpus."""

    evaluation: dict[str, dict[str, bytes]]
    fillers: dict[str, bytes]


def read_source(data: Path, *, photographs: int, tiny: int, fillers: int) -> Source:
    """Read so many pictures of each evaluation set, and others."""
    photos = dict(members(data / "images/imagenet_sample_600.tar", 600))
    names = sorted(photos, key=shuffled)
    small = dict(members(data / "images/cifar10_jpg.tar.gz", tiny, prefix="test/"))
    rest = {name: photos[name] for name in names[photographs:][:fillers]}
    more = members(data / "images/cifar10_jpg.tar.gz", fillers - len(rest), prefix="train/")
    return Source(
        evaluation={PHOTOGRAPHS: {n: photos[n] for n in names[:photographs]}, TINY: small},
        fillers={**rest, **dict(more)},
    )


def members(path: Path, most: int, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the first pictures of an archive below a folder."""
    with tarfile.open(path) as archive:
        for member in archive:
            if most <= 0:
                return
            if member.isfile() and member.name.startswith(prefix):
                file = archive.extractfile(member)
                if file is not None:
                    yield member.name, file.read()
                    most -= 1


def shuffled(name: str) -> int:
    """Return a number by which to put names into an order of no meaning."""
    return xxhash.xxh3_64_intdigest(name.encode())


def write_evalsets(folder: Path, source: Source, thresholds: dict[str, str]) -> Path:
    """Write each set as a zip of class folders, and the TOML file that names them."""
    tables = []
    for name, pictures in source.evaluation.items():
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for item, data in pictures.items():
                archive.writestr(item_of(item), data)
        tables.append(f'[{name}]\npath = "{name}.zip"\n{thresholds[name]}\n')
    path = folder / "sets.toml"
    path.write_text("\n".join(tables), encoding="utf-8")
    return path


def item_of(name: str) -> str:
    """Return the path of a picture within its zip: CLASS/NAME."""
    return name.removeprefix("test/") if "/" in name else f"photo/{name}"


def corpus(source: Source, planted: int, edits: Sequence[str]) -> Iterator[Picture]:
    """Yield the copies, a third of them of tiny pictures, each edit in its turn; then the fillers."""
    shares = {PHOTOGRAPHS: planted - planted // 3, TINY: planted // 3}
    for evalset, count in shares.items():
        pictures = source.evaluation[evalset]
        names = sorted(pictures, key=shuffled)
        for i in range(count):
            name, edit = names[i % len(names)], edits[i % len(edits)]
            copy = make_copy(edit, decode(pictures[name]).rgb, name)
            yield Picture(
                name=f"copy {evalset} {i}", data=copy, copy_of=(evalset, item_of(name)), edit=edit
            )
    for name, data in source.fillers.items():
        yield Picture(name=name, data=data)


def write_download(workspace: Workspace, pictures: Sequence[Picture], fillers: int) -> None:
    """Make a finished `download` of the pictures, in an order of no meaning."""
    config = Planted(planted=len(pictures) - fillers, fillers=fillers)
    stage = begin("download", config, workspace)
    if stage.done:
        return
    ordered = sorted(pictures, key=lambda picture: shuffled(picture.name))
    starts = range(0, len(ordered), PART_ROWS)
    stage.finish(
        [
            write_part(stage.output(i), ordered[start : start + PART_ROWS])
            for i, start in enumerate(starts)
        ]
    )


def write_part(output: TaskOutput, pictures: Sequence[Picture]) -> Outcome:
    """Write one part: a tar of stored pictures and the table."""
    path, rows = output.name("tar", "images"), []
    stored = [examine(picture.data, DownloadConfig()) for picture in pictures]
    with storage.atomic_output(output.workspace.path(path)) as file, TarWriter(file) as tar:
        for picture, image in zip(pictures, stored, strict=True):
            pair_id = pair_id_of(picture)
            offset, _ = tar.add(f"{pair_id}.{image.extension}", image.data)
            rows.append(
                {
                    "pair_id": pair_id,
                    "url": f"http://example.org/{pair_id}",
                    "caption": picture.name,
                    "caption_source": "alt",
                    "source": "planted",
                    "source_offset": 0,
                    "query_ids": [0],
                    "language": "en",
                    "language_probability": 1.0,
                    "selected_by": [0],
                    **asdict(image.measured),
                    "image_file": path,
                    "image_offset": offset,
                    "image_length": len(image.data),
                }
            )
    return output.write(
        rows_in=len(rows),
        kept=pa.Table.from_pylist(rows, schemas.DOWNLOADED),
        schema=schemas.DOWNLOADED,
        drops=schemas.DROPS.empty_table(),
    )


def pair_id_of(picture: Picture) -> str:
    """Return the id under which a picture stands in the tables."""
    return xxhash.xxh3_128_hexdigest(picture.name.encode())


@dataclass(frozen=True, kw_only=True)
class Score:
    """What was found of one set.

    Attributes:
        planted: copies of its pictures in the corpus.
        found: of them, dropped for an overlap.
        named: of them, with the picture they are copies of among those named.
        missed: edits of those not found.
        others: other corpus pictures dropped for the set, by name, with item, method and distance.
    """

    planted: int
    found: int
    named: int
    missed: tuple[str, ...]
    others: tuple[tuple[str, str, str, float], ...]


def score(workspace: Workspace, pictures: Iterable[Picture]) -> dict[str, Score]:
    """Compare what was dropped for each set with what was planted."""
    by_id = {pair_id_of(picture): picture for picture in pictures}
    drops = workspace.read_table("dedup", "drops", schemas.DROPS)
    out = drops.filter(pc.equal(drops.column("reason"), "evaluation_overlap"))
    dropped = set(out.column("pair_id").to_pylist())
    rows = workspace.read_table("dedup", "eval_overlaps", schemas.EVAL_OVERLAPS).to_pylist()
    scores = {}
    for evalset in (PHOTOGRAPHS, TINY):
        own = [row for row in rows if row["evalset"] == evalset]
        copies = {i: p for i, p in by_id.items() if p.copy_of and p.copy_of[0] == evalset}
        met = {(row["pair_id"], row["item"]) for row in own}
        scores[evalset] = Score(
            planted=len(copies),
            found=len(dropped & set(copies)),
            named=sum((i, p.copy_of[1]) in met for i, p in copies.items() if p.copy_of),
            missed=tuple(sorted(p.edit for i, p in copies.items() if i not in dropped)),
            others=tuple(
                (by_id[row["pair_id"]].name, row["item"], row["method"], row["distance"])
                for row in own
                if row["pair_id"] not in copies
            ),
        )
    return scores


def report(scores: dict[str, Score]) -> str:
    """Return a table, then what was missed and what else was found."""
    lines = [
        "| set | planted | found | named | recall | others dropped | precision |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for evalset, one in scores.items():
        others = len({name for name, *_ in one.others})
        precision = one.found / max(1, one.found + others)
        lines.append(
            f"| {evalset} | {one.planted} | {one.found} | {one.named} "
            f"| {one.found / max(1, one.planted):.1%} | {others} | {precision:.1%} |"
        )
    for evalset, one in scores.items():
        lines += [f"missed of {evalset}: {edit}" for edit in one.missed]
        lines += [f"else for {evalset}: {' '.join(map(str, other))}" for other in one.others]
    return "\n".join(lines)


def plant(
    folder: Path,
    source: Source,
    planted: int,
    executor: Executor,
    *,
    thresholds: dict[str, str],
    edits: Sequence[str] = tuple(EDITS),
    model: str = "",
) -> dict[str, Score]:
    """Build corpus and evaluation sets in `folder`, run `dedup`, and score it."""
    folder.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(root=str(folder / "workspace"))
    pictures = list(corpus(source, planted, edits))
    write_download(workspace, pictures, len(source.fillers))
    evalsets = write_evalsets(folder, source, thresholds)
    run(DedupConfig(evalsets=str(evalsets), embeddings=model), workspace, executor)
    return score(workspace, pictures)


def measure(data: Path, folder: Path, model: str, workers: int) -> None:
    """Hide 500 copies among 20,000 pictures and print what was found."""
    source = read_source(data, photographs=300, tiny=2_000, fillers=19_500)
    thresholds = {PHOTOGRAPHS: "max_distance = 47", TINY: "max_distance = 47"}
    if model:
        # What one in a million unrelated pairs reaches, see docs/embeddings.md.
        thresholds[PHOTOGRAPHS] += "\nmin_similarity = 0.75"
        thresholds[TINY] += "\nmin_similarity = 0.9"
    with closing(make_executor("local", workers=workers)) as executor:
        scores = plant(folder, source, 500, executor, thresholds=thresholds, model=model)
    print(report(scores))
