"""Pictures in tar files: of class folders, or WebDataset shards as CLIP_benchmark lays them out.

A WebDataset is a folder with `SPLIT/0.tar`, `SPLIT/1.tar`, ..., whose members KEY.webp and KEY.cls are
one sample; KEY.txt has captions, one a line. `classnames.txt` and
`zeroshot_classification_templates.txt` may stand beside the splits, `nshards.txt` in each.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from dedup.evaluation.readers.archives import Member, tar_members
from dedup.evaluation.readers.entries import (
    MAX_ITEM_BYTES,
    SUFFIXES,
    Entry,
    Piece,
    Reader,
    below,
    class_of,
    place_of,
    ranges,
    root_of,
    split_of,
    too_large,
)
from dedup.evaluation.readers.settings import EvalSet, is_template
from pipeline.errors import InputError
from pipeline.runtime import storage

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
CLASS_NAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
_SHARDS = "nshards.txt"
_MAX_TEXT_BYTES = 1 << 20


def tar_pieces(evalset: EvalSet) -> list[Piece]:
    """Return ranges of a tar's pictures; the whole where finding a place means reading all before it."""
    whole = [Piece(path=evalset.path)]
    if storage.is_url(evalset.path):
        return whole
    with tar_members(evalset.path, evalset.where) as (members, is_free):
        if not is_free:
            return whole
        pictures = sum(place_of(member.name, evalset.pattern) is not None for member in members)
    return ranges(evalset.path, pictures) or whole


def whole_tar(evalset: EvalSet) -> list[Piece]:
    """Return all of a tar's pictures, having seen that it is a tar."""
    with tar_members(evalset.path, evalset.where) as (members, _):
        next(members, None)
    return [Piece(path=evalset.path)]


def read_tar(evalset: EvalSet, piece: Piece) -> Iterator[Entry]:
    """Yield some of a tar's pictures, in its order."""
    end = None if piece.count is None else piece.first + piece.count
    with tar_members(piece.path, evalset.where) as (members, _):
        number = 0
        for member in members:
            place = place_of(member.name, evalset.pattern)
            if place is None:
                continue
            if end is not None and number >= end:
                return
            if number >= piece.first:
                yield Entry(
                    item=member.name,
                    class_name=place.class_name,
                    split=place.split,
                    read=member.read,
                )
            number += 1


def webdataset_pieces(evalset: EvalSet) -> list[Piece]:
    """Return the shards, each a piece, by split and number.

    Raises:
        InputError: if there is none, or fewer than `nshards.txt` promises.
    """
    files = [file for file in storage.list_files(evalset.path) if file.endswith(TAR_SUFFIXES)]
    if storage.size(evalset.path) is not None:
        files = [evalset.path]
    if not files:
        raise InputError(f"{evalset.where} holds no tar, expected SPLIT/0.tar, SPLIT/1.tar, ...")
    for folder in sorted({storage.parent(file) for file in files}):
        _check_count(evalset, folder, sum(storage.parent(file) == folder for file in files))
    pieces = [Piece(path=file, split=split_of(file)) for file in files]
    return sorted(pieces, key=lambda piece: (piece.split or "", _by_number(piece.path)))


def read_webdataset(evalset: EvalSet, piece: Piece) -> Iterator[Entry]:
    """Yield the samples of one shard that have a picture."""
    names = class_names(evalset)
    shard = below(root_of(evalset), piece.path)
    with tar_members(piece.path, evalset.where) as (members, is_free):
        for sample in _samples(members, evalset, is_free):
            if sample.read is not None:
                yield _entry(evalset, sample, shard, piece.split or "", names)


def texts_beside(evalset: EvalSet) -> list[str]:
    """Return the files of class names and templates that the set has."""
    paths = (storage.join(root_of(evalset), name) for name in (CLASS_NAMES, TEMPLATES))
    return [path for path in paths if storage.size(path) is not None]


def class_names(evalset: EvalSet) -> list[str]:
    """Return the lines of `classnames.txt`; none where there is no such file."""
    return _lines(evalset, CLASS_NAMES)


def templates(evalset: EvalSet) -> tuple[str, ...]:
    """Return the set's own caption templates with {label} in them; none where it has none.

    Raises:
        InputError: if a line has no place for the class, {c}.
    """
    lines = [line.replace("{c}", "{label}") for line in _lines(evalset, TEMPLATES)]
    for line in lines:
        if not is_template(line):
            raise InputError(
                f"{evalset.where}: {TEMPLATES} has {line!r}, expected {{c}} in every line"
            )
    return tuple(lines)


TAR = Reader(tar_pieces, read_tar, whole=whole_tar)
WEBDATASET = Reader(webdataset_pieces, read_webdataset, texts_beside)


@dataclass(kw_only=True)
class _Sample:
    """Members with the same name up to the first dot."""

    key: str
    suffix: str = ""
    read: partial[bytes] | None = None
    texts: dict[str, bytes] = field(default_factory=dict)


def is_webdataset(members: Iterator[Member]) -> bool:
    """Return whether the first members are samples: a picture with a class or a caption of its name."""
    kinds: dict[str, set[str]] = {}
    for _, member in zip(range(64), members, strict=False):
        key, kind = _key(member.name)
        kinds.setdefault(key, set()).add(kind)
    return any(
        {f".{kind}" for kind in some} & SUFFIXES and some & {"cls", "txt", "json"}
        for some in kinds.values()
    )


def _key(name: str) -> tuple[str, str]:
    folder, slash, last = name.rpartition("/")
    key, _, kind = last.partition(".")
    return folder + slash + key, kind.lower()


def _samples(members: Iterator[Member], evalset: EvalSet, is_free: bool) -> Iterator[_Sample]:
    sample = None
    for member in members:
        key, kind = _key(member.name)
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = _Sample(key=key)
        if f".{kind}" in SUFFIXES and sample.read is None:
            if member.size > MAX_ITEM_BYTES:
                raise too_large(evalset, member.name, member.size)
            # What stands before the sample's end in a compressed tar is gone when its turn comes.
            sample.suffix = kind
            sample.read = member.read if is_free else partial(bytes, member.read())
        elif kind in ("cls", "txt"):
            if member.size > _MAX_TEXT_BYTES:
                raise InputError(
                    f"{evalset.where}: {member.name} has {member.size} bytes, "
                    f"expected at most {_MAX_TEXT_BYTES}"
                )
            sample.texts[kind] = member.read()
    if sample is not None:
        yield sample


def _entry(evalset: EvalSet, sample: _Sample, shard: str, split: str, names: list[str]) -> Entry:
    entry = Entry(
        item=f"{shard}/{sample.key}.{sample.suffix}",
        split=split,
        captions=tuple(_text_lines(sample.texts.get("txt", b""))),
        read=sample.read,
    )
    if "cls" not in sample.texts:
        return entry
    given = sample.texts["cls"].decode("utf-8", "replace").strip()
    if not re.fullmatch(r"-?\d{1,9}", given):
        return replace(entry, class_name=given or None)
    name = class_of(int(given), names, evalset, entry.item)
    label = evalset.labels.get(name, name) if names and name is not None else None
    return replace(entry, class_name=name, label=label)


def _lines(evalset: EvalSet, name: str) -> list[str]:
    path = storage.join(root_of(evalset), name)
    if storage.size(path) is None:
        return []
    return _text_lines(storage.read_range(path, 0, _MAX_TEXT_BYTES))


def _text_lines(data: bytes) -> list[str]:
    return [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]


def _check_count(evalset: EvalSet, folder: str, found: int) -> None:
    path = storage.join(folder, _SHARDS)
    if evalset.path != root_of(evalset) or storage.size(path) is None:
        return
    promised = storage.read_range(path, 0, 64).decode("utf-8", "replace").strip()
    if promised != str(found):
        raise InputError(f"{evalset.where}: {path} says {promised!r}, but {found} tars are there")


def _by_number(path: str) -> tuple[int, str]:
    digits = re.findall(r"\d+", path.rpartition("/")[2])
    return int(digits[-1]) if digits else -1, path
