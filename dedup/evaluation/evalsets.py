"""Evaluation sets, named in one TOML file and read whatever their layout.

```toml
[fashion]
path = "evalsets/fashion.zip"          # relative to this file
prompts = ["a photo of a {label}."]
labels = { ankle_boot = "ankle boot" }
max_distance = 31
```

The same file tells `dedup` which pictures must not be in the corpus and `evaluate` what to measure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pyarrow import fs

from dedup.evaluation.readers.archives import BROKEN, is_tar, opened, tar_members
from dedup.evaluation.readers.caption_lists import COCO, FLICKR, KARPATHY, list_format
from dedup.evaluation.readers.entries import Entry, Piece, Reader, below, is_hidden, place_of
from dedup.evaluation.readers.folders import FOLDER, ZIP, check_labels
from dedup.evaluation.readers.raw_pixels import CIFAR, IDX, IDX_PICTURES, is_cifar
from dedup.evaluation.readers.settings import FORMATS, EvalSet, Format, read_evalsets
from dedup.evaluation.readers.tables import PARQUET
from dedup.evaluation.readers.tars import TAR, TAR_SUFFIXES, WEBDATASET, is_webdataset, templates
from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage

__all__ = [
    "Entry", "EvalItem", "EvalSet", "Piece", "entries", "files_of", "format_of", "is_labelled",
    "items", "pieces", "prompts_of", "read_evalsets",
]  # fmt: skip

READERS: Mapping[Format, Reader] = {
    "folder": FOLDER,
    "zip": ZIP,
    "tar": TAR,
    "webdataset": WEBDATASET,
    "parquet": PARQUET,
    "idx": IDX,
    "cifar": CIFAR,
    "coco": COCO,
    "karpathy": KARPATHY,
    "flickr": FLICKR,
}
_ONLY_FOR: Mapping[str, tuple[Format, ...]] = {
    "pattern": ("folder", "zip", "tar"),
    "images": ("coco", "karpathy", "flickr"),
    "image_column": ("parquet",),
    "label_column": ("parquet",),
    "caption_column": ("parquet",),
    "transposed": ("idx",),
}
_HEAD_BYTES = 64 << 10
_PICKLE = b"\x80"


@dataclass(frozen=True, kw_only=True)
class EvalItem:
    """One picture of a set.

    Attributes:
        item: names it within the set, such as "boot/0012.png".
        label: its class in words; None where the set names none.
        split: such as "test"; empty where the set has none.
        is_original: False where the set holds pixels, of which `data` is a PNG made here.
    """

    item: str
    label: str | None
    data: bytes
    split: str = ""
    captions: tuple[str, ...] = ()
    is_original: bool = True


def items(evalset: EvalSet) -> Iterator[EvalItem]:
    """Yield the pictures of a set, each read when its turn comes; captions without a picture are left out.

    Folders and zips are sorted by item, other sets come as they lie. Hidden files and those whose name
    does not end like a picture's are passed over.

    Raises:
        InputError: the set is absent, empty or broken, or `labels` or `split` name what it lacks.
    """
    for entry in entries(evalset):
        if entry.read is not None:
            yield EvalItem(
                item=entry.item,
                label=entry.label,
                data=entry.read(),
                split=entry.split,
                captions=entry.captions,
                is_original=entry.is_original,
            )


def entries(evalset: EvalSet, piece: Piece | None = None) -> Iterator[Entry]:
    """Yield what `items` yields, unread, and captions without a picture; of one piece, or of the set.

    Raises:
        InputError: as `items`; what only the whole set can lack is not missed in a piece.
    """
    seen: set[str] = set()
    classes: set[str] = set()
    named: set[str] = set()
    for some in [piece] if piece else _whole(evalset):
        for entry in _reader(evalset).read(evalset, some):
            seen.add(entry.split)
            if evalset.split and entry.split not in evalset.split:
                continue
            if entry.item in named:
                raise InputError(f"{evalset.where} holds {entry.item} twice")
            named.add(entry.item)
            if entry.class_name is None:
                yield entry
                continue
            classes.add(entry.class_name)
            label = entry.label or evalset.label(entry.class_name)
            yield replace(entry, label=label)
    if piece is None:
        if not named:
            raise _nothing(evalset, seen)
        check_labels(evalset, classes | set(evalset.labels if _are_numbers(evalset) else ()))


def pieces(evalset: EvalSet) -> list[Piece]:
    """Return the shares of a set that can be read by themselves, in its order.

    Raises:
        InputError: the set is absent or not laid out as a format asks; or no piece is of a `split`.
    """
    return _of_splits(evalset, _reader(evalset).pieces(evalset))


def _whole(evalset: EvalSet) -> list[Piece]:
    """Return pieces that together are the set, in its order, as quickly as they can be had."""
    reader = _reader(evalset)
    return _of_splits(evalset, (reader.whole or reader.pieces)(evalset))


def _of_splits(evalset: EvalSet, found: list[Piece]) -> list[Piece]:
    wanted = [p for p in found if not evalset.split or p.split is None or p.split in evalset.split]
    if not wanted:
        raise _nothing(evalset, {piece.split or "" for piece in found})
    return wanted


def files_of(path: str, evalsets: Sequence[EvalSet]) -> dict[str, str]:
    """Make sure that each set can be opened, and return what a stage that reads it depends on.

    That is every file or folder of the sets, under names that are their own, and the `path` of the
    TOML file under a name that no set can have. Of a set in an object store only lists are read.

    Raises:
        InputError: as `items`, but for damage within a set.
    """
    files = {"evaluation sets": path}
    for evalset in evalsets:
        _whole(evalset)
        files |= places_of(evalset)
    return files


def places_of(evalset: EvalSet) -> dict[str, str]:
    """Return the files and folders that a set is read from, under names that begin with its own."""
    if storage.exists(evalset.path):
        places = {evalset.name: evalset.path}
    else:
        places = {f"{evalset.name}: {path}": path for path in storage.list_files(evalset.path)}
    if evalset.images:
        places[f"{evalset.name}: images"] = evalset.images
    return places | {f"{evalset.name}: {path}": path for path in _reader(evalset).beside(evalset)}


def format_of(evalset: EvalSet) -> Format:
    """Return how a set is laid out: as it says itself, else by its content.

    Raises:
        InputError: if it is absent or nothing that is read.
        ConfigError: if a setting of another format is given.
    """
    kind = _detect(evalset) if evalset.format == "auto" else evalset.format
    for setting, formats in _ONLY_FOR.items():
        if setting in evalset.model_fields_set and kind not in formats:
            raise ConfigError(
                f"{evalset.where} is read as {kind}: {setting} is for {', '.join(formats)} alone; "
                "remove it, or say what it is by format"
            )
    return kind


def prompts_of(evalset: EvalSet) -> tuple[str, ...]:
    """Return the caption templates of a set: those of the TOML file, else its own, else the default."""
    if "prompts" in evalset.model_fields_set or format_of(evalset) != "webdataset":
        return evalset.prompts
    return templates(evalset) or evalset.prompts


def is_labelled(evalset: EvalSet) -> bool:
    """Return whether a set says which class its pictures are of, by the first of them."""
    return next(entries(evalset)).label is not None


def _reader(evalset: EvalSet) -> Reader:
    return READERS[format_of(evalset)]


def _are_numbers(evalset: EvalSet) -> bool:
    # A set need not hold a picture of each class, and a list of names gives them all.
    return all(key.isdecimal() for key in evalset.labels)


def _nothing(evalset: EvalSet, splits: set[str]) -> InputError:
    if evalset.split:
        return InputError(
            f"{evalset.where} has no split {' or '.join(evalset.split)}, "
            f"expected one of: {', '.join(sorted(splits)) or 'none at all'}"
        )
    return InputError(f"{evalset.where} holds no picture")


def _detect(evalset: EvalSet) -> Format:
    if storage.is_pattern(evalset.path):
        return _detect_file(evalset, storage.list_files(evalset.path)[0])
    system, inner = storage.filesystem(evalset.path)
    kind = system.get_file_info(inner).type
    if kind == fs.FileType.File:
        return _detect_file(evalset, evalset.path)
    if kind == fs.FileType.Directory:
        return _detect_folder(evalset)
    raise InputError(f"{evalset.where} does not exist, expected a file, a folder or a pattern")


def _detect_folder(evalset: EvalSet) -> Format:
    """Tell a folder by the names in it, all of which must be of one kind.

    Raises:
        InputError: if pictures lie beside files that hold pictures, or such files of two kinds.
    """
    kinds: dict[Format, str] = {}
    for path in storage.list_inside(evalset.path):
        name = below(evalset.path, path)
        if not is_hidden(name) and (kind := _kind_of(path, name)):
            kinds.setdefault(kind, name)
    if len(kinds) > 1:
        found = ", ".join(f"{name} ({kind})" for kind, name in kinds.items())
        raise InputError(f"{evalset.where} holds {found}; say by format which of them to read")
    return next(iter(kinds), "folder")


def _kind_of(path: str, name: str) -> Format | None:
    if place_of(name, ""):
        return "folder"
    if name.endswith(TAR_SUFFIXES):
        return "webdataset"
    if name.endswith(".parquet"):
        return "parquet"
    if "ubyte" in name.rpartition("/")[2]:
        return "idx"
    if is_cifar(name) and storage.read_range(path, 0, 1) == _PICKLE:
        return "cifar"
    return None


def _detect_file(evalset: EvalSet, path: str) -> Format:
    start = storage.read_range(path, 0, 4)
    if start.startswith(b"PK"):
        return "zip"
    if start == b"PAR1":
        return "parquet"
    try:
        with opened(path) as (file, _):
            head = file.read(_HEAD_BYTES)
    except BROKEN as error:
        raise InputError(f"{evalset.where} cannot be unpacked: {error}") from error
    if is_tar(head):
        return _detect_tar(evalset, path)
    if head[:4] in (IDX_PICTURES, IDX_PICTURES[:3] + b"\x01"):
        return "idx"
    if head.startswith(_PICKLE) and is_cifar(path):
        return "cifar"
    if kind := list_format(head):
        return next(name for name in FORMATS if name == kind)
    raise InputError(
        f"{evalset.where} is of an unknown kind, it begins with {head[:8]!r}; "
        f"expected one of: {', '.join(FORMATS)}"
    )


def _detect_tar(evalset: EvalSet, path: str) -> Format:
    with tar_members(path, evalset.where) as (members, _):
        names = (member.name for _, member in zip(range(4), members, strict=False))
        if any(is_cifar(name) and "cifar-10" in name for name in names):
            return "cifar"
    with tar_members(path, evalset.where) as (members, _):
        return "webdataset" if is_webdataset(members) else "tar"
