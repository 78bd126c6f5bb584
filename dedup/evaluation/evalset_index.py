"""Hash, and embed where a model is named, every picture of the evaluation sets once.

An index is a folder beside the TOML file, `SETS.index/NAME/STATE/`, of one Parquet file a piece and
`index.json`, written last. STATE stands for what the set's files and settings were: where they change,
another folder is made and the old one goes. Thresholds and prompts are no part of it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import pipeline
from dedup.evaluation.evalsets import EvalSet, Piece, entries, format_of, pieces, places_of
from dedup.evaluation.readers.entries import Entry
from pipeline import schemas
from pipeline.errors import InputError
from pipeline.pictures.images import HASHED_SIDE, ImageRefused, Pixels, decode, pdq, pixel_hash
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Outcome, digest
from pipeline.runtime.parquet import read_parquet
from pipeline.runtime.progress import Progress
from pipeline.runtime.stage import StageRun

if TYPE_CHECKING:
    from dedup.embedding.embedding_models import EmbeddingModel

Device = Literal["auto", "cpu", "cuda"]

_DONE = "index.json"
_KINDS = ("split", "pattern", "image_column", "label_column", "caption_column", "transposed", "labels", "names")  # fmt: skip
_STATE = r"[0-9a-f]{12}(-[0-9a-f]{8})?"
_GROUP = 256


@dataclass(frozen=True, kw_only=True)
class IndexTask:
    """One piece of a set to hash into the file `target`."""

    evalset: EvalSet
    piece: Piece
    model: str
    device: Device
    target: str

    def __str__(self) -> str:
        return f"{self.evalset.name} from {self.piece.path}"


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """An index of one set.

    Attributes:
        files: Parquet files of EVALUATION_PICTURES, in the order of the set.
        unreadable: pictures that cannot be decoded; `refusal` says why of the first.
        absent: pictures of a list of captions that are not where its `images` are.
        was_there: whether nothing was to do.
    """

    files: tuple[str, ...]
    pictures: int
    captions: int
    unreadable: int
    refusal: str
    absent: int
    classes: int
    splits: tuple[str, ...]
    was_there: bool = False


def index_folder(toml: str) -> str:
    """Return where the index of the sets of a TOML file lies."""
    return f"{toml.removesuffix('.toml')}.index"


def make_index(
    evalsets: Sequence[EvalSet],
    folder: str,
    executor: Executor,
    *,
    model: str = "",
    device: Device = "auto",
) -> dict[str, Indexed]:
    """Bring the index of each set up to date; return what it holds, by name.

    Raises:
        InputError: if a set cannot be read, or not one of its pictures.
        ConfigError: if the model cannot be used.
        TaskFailed: if a piece cannot be read.
    """
    states = {evalset.name: state_of(evalset, model) for evalset in evalsets}
    found = {evalset.name: find_index(evalset, folder, model) for evalset in evalsets}
    targets = {
        evalset.name: storage.join(folder, evalset.name, states[evalset.name])
        for evalset in evalsets
        if found[evalset.name] is None
    }
    tasks = _tasks([e for e in evalsets if e.name in targets], targets, model, device)
    _run(tasks, executor, "evalsets")
    for evalset in evalsets:
        if evalset.name in targets:
            files = [task.target for task in tasks if task.evalset.name == evalset.name]
            made = _describe(evalset, files)
            _finish(storage.join(folder, evalset.name), states[evalset.name], made)
            found[evalset.name] = made
    return {name: indexed for name, indexed in found.items() if indexed is not None}


def find_index(evalset: EvalSet, folder: str, model: str = "") -> Indexed | None:
    """Return the index of a set as it now is, by this model or, where none is named, by any; None if there is none."""
    state = state_of(evalset, model)
    for path in storage.list_inside(storage.join(folder, evalset.name)):
        place, _, last = path.rpartition("/")
        name = place.rpartition("/")[2]
        is_fit = name == state or (not model and name.startswith(f"{state}-"))
        if last == _DONE and is_fit and (indexed := _read_done(place, path)):
            return indexed
    return None


def evaluation_files(
    stage: StageRun,
    executor: Executor,
    toml: str,
    evalsets: Sequence[EvalSet],
    *,
    folder: str = "",
    model: str = "",
    device: Device = "auto",
) -> tuple[tuple[str, ...], list[Outcome]]:
    """Return files of EVALUATION_PICTURES for all sets, and what was counted, for a stage.

    Where `witmill evalsets index` has been run and nothing has changed since, they are its own; the
    others are made in the stage's scratch.

    Args:
        folder: of the index; empty for the one beside the TOML file.

    Raises:
        InputError: if not one picture of a set can be decoded.
        TaskFailed: if a piece cannot be read.
    """
    if not evalsets:
        return (), []
    found = {e.name: find_index(e, folder or index_folder(toml), model) for e in evalsets}
    scratch = stage.scratch("evaluation")
    targets = {e.name: storage.join(scratch, e.name) for e in evalsets if not found[e.name]}
    tasks = _tasks([e for e in evalsets if e.name in targets], targets, model, device)
    _run(tasks, executor, f"{stage.name}: evaluation")
    for evalset in evalsets:
        if evalset.name in targets:
            files = [task.target for task in tasks if task.evalset.name == evalset.name]
            found[evalset.name] = _describe(evalset, files)
    indexes = [indexed for indexed in found.values() if indexed]
    counters = {
        "evaluation_pictures": sum(indexed.pictures for indexed in indexes),
        "evaluation_unreadable": sum(indexed.unreadable for indexed in indexes),
        "evaluation_absent": sum(indexed.absent for indexed in indexes),
        "evaluation_captions": sum(indexed.captions for indexed in indexes),
    }
    files = [file for indexed in indexes for file in indexed.files]
    return tuple(files), [Outcome(counters=counters)]


def state_of(evalset: EvalSet, model: str = "") -> str:
    """Return a name for the present state of a set's files and of what reads them, this version included."""
    places = {name: asdict(storage.stamp(path)) for name, path in places_of(evalset).items()}
    settings = {key: value for key, value in evalset.model_dump().items() if key in _KINDS}
    basis = [pipeline.__version__, evalset.name, format_of(evalset), settings, places]
    state = digest(basis)[:12]
    return f"{state}-{_state_of_model(model)}" if model else state


def index_piece(task: IndexTask) -> Outcome:
    """Hash one piece; runs in a worker."""
    rows = 0
    with (
        storage.atomic_output(task.target) as file,
        pq.ParquetWriter(file, schemas.EVALUATION_PICTURES, compression="zstd") as writer,
    ):
        for table in picture_tables(task.evalset, task.piece, task.model, task.device):
            writer.write_table(table)
            rows += len(table)
    return Outcome(rows_in=rows, rows_out=rows)


def picture_tables(
    evalset: EvalSet, piece: Piece, model: str = "", device: Device = "auto"
) -> Iterator[pa.Table]:
    """Yield the EVALUATION_PICTURES of a piece, a few hundred at a time."""
    loaded = _load(model, device) if model else None
    rows: list[dict[str, Any]] = []
    squares: list[Pixels] = []
    embedded: list[dict[str, Any]] = []
    for entry in entries(evalset, piece):
        row, rgb = picture_row(evalset.name, entry)
        rows.append(row)
        if loaded is not None and rgb is not None:
            squares.append(loaded.preparation.square(rgb))
            embedded.append(row)
        if len(rows) == _GROUP:
            yield _table(rows, embedded, squares, loaded)
            rows, squares, embedded = [], [], []
    if rows:
        yield _table(rows, embedded, squares, loaded)


def picture_row(evalset: str, entry: Entry) -> tuple[dict[str, Any], Pixels | None]:
    """Return the row of one picture without its embedding, and its pixels if it can be decoded."""
    row: dict[str, Any] = {
        "evalset": evalset,
        "item": entry.item,
        "split": entry.split,
        "label": entry.label,
        "captions": list(entry.captions),
    }
    if entry.read is None:
        return row, None
    data = entry.read()
    if entry.is_original:
        row["image_sha256"] = hashlib.sha256(data).hexdigest()
    try:
        rgb = decode(data, short_side=HASHED_SIDE).rgb
    except ImageRefused as error:
        return row | {"refused": str(error)}, None
    row["pixel_hash"] = pixel_hash(rgb)
    row["pdq"], row["pdq_quality"] = pdq(rgb)
    row["pdq_mirrored"], _ = pdq(rgb[:, ::-1])
    return row, rgb


def _table(
    rows: list[dict[str, Any]],
    embedded: list[dict[str, Any]],
    squares: list[Pixels],
    model: "EmbeddingModel | None",
) -> pa.Table:
    """Return the rows, `embedded` of which get their embedding."""
    if model is not None and squares:
        vectors = model.embed_squares(np.stack(squares)).astype(np.float16)
        for row, vector in zip(embedded, vectors, strict=True):
            row["embedding"] = vector
    return pa.Table.from_pylist(rows, schemas.EVALUATION_PICTURES)


def _load(model: str, device: Device) -> "EmbeddingModel":
    # Here, because it brings in a library for models, which hashing alone needs none of.
    from dedup.embedding.embedding_models import loaded_model

    return loaded_model(model, device)


def _state_of_model(model: str) -> str:
    from dedup.embedding.embedding_models import check_model, model_files

    check_model(model)
    files = {name: asdict(storage.stamp(path)) for name, path in model_files(model).items()}
    return digest([model.rpartition("/")[2], files])[:8]


def _tasks(
    evalsets: Sequence[EvalSet], targets: Mapping[str, str], model: str, device: Device
) -> list[IndexTask]:
    return [
        IndexTask(
            evalset=evalset,
            piece=piece,
            model=model,
            device=device,
            target=storage.join(targets[evalset.name], f"{number:05d}.parquet"),
        )
        for evalset in evalsets
        for number, piece in enumerate(pieces(evalset))
    ]


def _run(tasks: Sequence[IndexTask], executor: Executor, title: str) -> None:
    """Run the tasks whose file is not there yet, which an interrupted run may have left."""
    missing = [task for task in tasks if not storage.exists(task.target)]
    if not missing:
        return
    with Progress(title, len(tasks), done=len(tasks) - len(missing)) as progress:
        for outcome in executor.map(index_piece, missing):
            progress.advance(rows=outcome.rows_in)


def _describe(evalset: EvalSet, files: Sequence[str]) -> Indexed:
    """Count what the files of a set hold.

    Raises:
        InputError: if there are pictures, but none that can be decoded; or two of one name.
    """
    columns = ["item", "split", "label", "captions", "pixel_hash", "refused"]
    table = pa.concat_tables([read_parquet(file, columns=columns) for file in files])
    named = pc.value_counts(table.column("item"))
    if twice := named.filter(pc.greater(named.field("counts"), 1)).slice(0, 1).to_pylist():
        raise InputError(f"{evalset.where} holds {twice[0]['values']} twice")
    refused = table.filter(table.column("refused").is_valid()).slice(0, 1).to_pylist()
    refusal = f"{refused[0]['item']} is refused, {refused[0]['refused']}" if refused else ""
    readable = len(table) - table.column("pixel_hash").null_count
    unreadable = len(table) - table.column("refused").null_count
    if unreadable and not readable:
        raise InputError(f"{evalset.where} holds no readable picture: {refusal}")
    return Indexed(
        files=tuple(files),
        pictures=readable + unreadable,
        captions=pc.sum(pc.list_value_length(table.column("captions"))).as_py() or 0,
        unreadable=unreadable,
        refusal=refusal,
        absent=len(table) - readable - unreadable if evalset.images else 0,
        classes=pc.count_distinct(table.column("label")).as_py(),
        splits=tuple(sorted(filter(None, pc.unique(table.column("split")).to_pylist()))),
    )


def _finish(folder: str, state: str, made: Indexed) -> None:
    """Declare an index whole, and remove those of the set's earlier states."""
    names = [file.rpartition("/")[2] for file in made.files]
    sizes = {name: storage.size(storage.join(folder, state, name)) for name in names}
    about = {**asdict(made), "files": sizes}
    del about["was_there"]
    text = json.dumps(about, indent=1, ensure_ascii=False)
    storage.write_bytes(storage.join(folder, state, _DONE), f"{text}\n".encode())
    present = {path[len(folder) + 1 :].partition("/")[0] for path in storage.list_inside(folder)}
    for name in present:
        if re.fullmatch(_STATE, name) and name[:12] != state[:12]:
            storage.remove(storage.join(folder, name))


def _read_done(folder: str, path: str) -> Indexed | None:
    """Return what an index says of itself; None if a file of it is not as it was."""
    try:
        about = json.loads(storage.read_bytes(path))
        sizes = about.pop("files")
        if any(storage.size(storage.join(folder, name)) != size for name, size in sizes.items()):
            return None
        files = tuple(storage.join(folder, name) for name in sizes)
        return Indexed(**{**about, "splits": tuple(about["splits"])}, files=files, was_there=True)
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not whole or not ours: made anew.
        return None
