"""Caption sets: COCO's annotations, Karpathy's splits, Flickr's token files and tables, with pictures beside.

A list names pictures and their captions; `images` says where the pictures lie. Without it, or for a
picture that is not there, the captions alone are given.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import orjson

from dedup.evaluation.readers.archives import BROKEN, is_tar, opened
from dedup.evaluation.readers.entries import Entry, Piece, Reader, split_of
from dedup.evaluation.readers.folders import FOLDER, ZIP
from dedup.evaluation.readers.settings import EvalSet
from dedup.evaluation.readers.tars import TAR
from pipeline.errors import InputError, StorageError
from pipeline.runtime import storage

# Larger than any list of a known set, all of which are read at once.
MAX_LIST_BYTES = 1 << 30
MAX_HEADING = 200


class Captioned(NamedTuple):
    """A picture of a list."""

    item: str
    split: str
    captions: tuple[str, ...]


def list_pieces(evalset: EvalSet) -> list[Piece]:
    """Return the list as a piece, and make sure that `images` is there."""
    if evalset.images and not storage.exists(evalset.images):
        raise InputError(f"{evalset.where}: images are not at {evalset.images}")
    return [Piece(path=evalset.path)]


def read_coco(evalset: EvalSet, piece: Piece) -> Iterator[Entry]:
    """Yield the pictures of COCO's annotations."""
    return _entries(evalset, _read_list(evalset, piece.path, _coco))


def read_karpathy(evalset: EvalSet, piece: Piece) -> Iterator[Entry]:
    """Yield the pictures of Karpathy's splits."""
    return _entries(evalset, _read_list(evalset, piece.path, _karpathy))


def read_flickr(evalset: EvalSet, piece: Piece) -> Iterator[Entry]:
    """Yield the pictures of a token file, or of a table of captions."""
    return _entries(evalset, _read_list(evalset, piece.path, _flickr))


COCO = Reader(list_pieces, read_coco)
KARPATHY = Reader(list_pieces, read_karpathy)
FLICKR = Reader(list_pieces, read_flickr)


def list_format(head: bytes) -> str | None:
    """Return which kind of list begins so, None if none does."""
    if re.match(rb"[^\t\n]*#\d+\t", head) or _columns(head.decode("utf-8", "replace")):
        return "flickr"
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return None
    return "karpathy" if b'"sentences"' in head or b'"sentids"' in head else "coco"


def _read_list(
    evalset: EvalSet, path: str, parse: Callable[[bytes, str], list[Captioned]]
) -> list[Captioned]:
    try:
        with opened(path) as (file, _):
            data = file.read(MAX_LIST_BYTES + 1)
    except BROKEN as error:
        raise InputError(f"{evalset.where} cannot be unpacked: {error}") from error
    if len(data) > MAX_LIST_BYTES:
        raise InputError(f"{evalset.where} has over {MAX_LIST_BYTES} bytes, too many for a list")
    try:
        found = parse(data, split_of(path))
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")[:200]
        raise InputError(f"{evalset.where} is not such a list of captions: {reason}") from error
    if not found:
        raise InputError(f"{evalset.where} holds no caption")
    return found


def _coco(data: bytes, split: str) -> list[Captioned]:
    about = orjson.loads(data)
    names = {image["id"]: str(image["file_name"]) for image in about["images"]}
    captions: dict[Any, list[str]] = {number: [] for number in names}
    for annotation in about["annotations"]:
        captions[annotation["image_id"]].append(str(annotation["caption"]))
    return [Captioned(names[n], split, tuple(texts)) for n, texts in captions.items() if texts]


def _karpathy(data: bytes, split: str) -> list[Captioned]:
    return [
        Captioned(
            "/".join(filter(None, [image.get("filepath"), str(image["filename"])])),
            str(image.get("split") or split),
            tuple(str(sentence["raw"]) for sentence in image["sentences"]),
        )
        for image in orjson.loads(data)["images"]
    ]


def _flickr(data: bytes, split: str) -> list[Captioned]:
    text = data.decode("utf-8", "replace")
    if columns := _columns(text):
        return _table(text, columns, split)
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab:
            raise ValueError(f"line {number} has no tab, expected FILE#N, a tab and a caption")
        captions.setdefault(name.rpartition("#")[0] or name, []).append(caption)
    return [Captioned(name, split, tuple(texts)) for name, texts in captions.items()]


def _columns(text: str) -> list[str]:
    """Return the columns that the first line of a table of captions names; none if it is no such line."""
    first = text[:MAX_HEADING].lstrip("\ufeff").partition("\n")[0]
    columns = [name.strip() for name in re.split(r"[,|]", first)]
    known = {"image", "caption"}, {"image_name", "comment"}, {"filename", "raw"}
    return columns if any(names <= set(columns) for names in known) else []


def _table(text: str, columns: Sequence[str], split: str) -> list[Captioned]:
    """Read one caption a line, or all of a picture as a JSON list."""
    if "comment" in columns:
        return _numbered_comments(text, split)
    rows = csv.DictReader(io.StringIO(text.lstrip("\ufeff"), newline=""), skipinitialspace=True)
    captions: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if "raw" in columns:
            texts = [str(caption) for caption in orjson.loads(row["raw"])]
            captions.setdefault((row["filename"], row.get("split") or split), []).extend(texts)
        else:
            captions.setdefault((row["image"], split), []).append(row["caption"].strip())
    return [Captioned(name, of, tuple(texts)) for (name, of), texts in captions.items()]


def _numbered_comments(text: str, split: str) -> list[Captioned]:
    """Read `FILE| N| CAPTION`; of the published file one line lacks the second bar."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines()[1:], 2):
        found = re.fullmatch(r"\s*([^|]+?)\s*\|\s*\d+\s*\|?\s*(.*?)\s*", line)
        if found:
            captions.setdefault(found[1], []).append(found[2])
        elif line.strip():
            raise ValueError(f"line {number} is not FILE| N| CAPTION")
    return [Captioned(name, split, tuple(texts)) for name, texts in captions.items()]


def _entries(evalset: EvalSet, listed: list[Captioned]) -> Iterator[Entry]:
    """Yield what is listed: first what has a picture, as pictures lie, then the others in their order."""
    waiting = {PurePosixPath(captioned.item).name: captioned for captioned in listed}
    if len(waiting) < len(listed):
        raise InputError(f"{evalset.where} lists two pictures of one name, expected each once")
    wanted = {n for n, c in waiting.items() if not evalset.split or c.split in evalset.split}
    for entry in _pictures(evalset) if evalset.images else ():
        captioned = waiting.pop(PurePosixPath(entry.item).name, None)
        if captioned is not None:
            yield replace(
                entry,
                class_name=None,
                item=captioned.item,
                split=captioned.split,
                captions=captioned.captions,
            )
    if evalset.images and wanted and wanted <= waiting.keys():
        raise InputError(
            f"{evalset.where} lists {len(wanted)} pictures, none of which is in {evalset.images}; "
            f"expected files such as {min(wanted)} there"
        )
    for captioned in waiting.values():
        yield Entry(
            item=captioned.item, split=captioned.split, captions=captioned.captions, read=None
        )


def _pictures(evalset: EvalSet) -> Iterator[Entry]:
    """Yield the pictures at `images`, whichever of the simple layouts they have."""
    beside = evalset.model_copy(update={"path": evalset.images, "labels": {}})
    if storage.size(evalset.images) is None:
        return _all(FOLDER, beside)
    try:
        with opened(evalset.images) as (file, _):
            head = file.read(512)
    except BROKEN as error:
        raise StorageError(f"cannot read {evalset.images}: {error}") from error
    return _all(TAR if is_tar(head) else ZIP, beside)


def _all(reader: Reader, evalset: EvalSet) -> Iterator[Entry]:
    for piece in reader.pieces(evalset):
        yield from reader.read(evalset, piece)
