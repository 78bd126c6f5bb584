"""Folders of pictures in folders named after their class, which get captions from templates."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xxhash
from pyarrow import fs

from dedup.evaluation.readers.entries import SUFFIXES
from dedup.evaluation.readers.settings import EvalSet
from pipeline.errors import InputError
from pipeline.runtime import storage
from pipeline.runtime.manifest import digest
from train.samples.indexed import Indexed, ReadRows

PICTURES_TOGETHER = 8192

REASONS = {
    "no_class": "the picture lies in no folder of a class",
    "no_picture": "the file's name does not end like a picture's",
    "empty_file": "the file has no bytes",
}

COLUMNS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("shard", pa.string()),
        ("caption", pa.large_string()),
        ("image_offset", pa.int64()),
        ("image_length", pa.int64()),
        ("class", pa.string()),
    ]
)


def of_folder(settings: EvalSet) -> Indexed:
    """Return the pictures below `settings.path`; the caption of each is the label of its class.

    They are put into a fixed random order first, since those of a class lie together.

    Raises:
        InputError: if there is none, or `labels` names a class that is not there.
    """
    root = settings.path
    found: list[tuple[int, str, int]] = []
    left_out: Counter[str] = Counter()
    example = ""
    for name, size in _files(root):
        reason = _why_not(name, size)
        if reason is None:
            found.append((xxhash.xxh3_64_intdigest(name.encode()), name, size))
        else:
            left_out[reason] += 1
            example = example or f"{name}: {reason}"
    if not found:
        raise InputError(
            f"{root} holds no pictures in folders of their classes, such as {root}/cat/1.jpg"
        )
    found.sort()
    classes = {name.partition("/")[0] for _, name, _ in found}
    if unknown := sorted(settings.labels.keys() - classes):
        raise InputError(f"{root} has no class {unknown[0]!r}, which labels names")
    edges = np.minimum(np.arange(0, len(found) + PICTURES_TOGETHER, PICTURES_TOGETHER), len(found))
    return Indexed(
        rows=np.diff(edges),
        identity=digest([[name, size] for _, name, size in found]),
        columns=COLUMNS,
        read=_reader(_table(found, root, settings)),
        prompts=settings.prompts,
        left_out=dict(sorted(left_out.items())),
        example=example,
    )


def _files(root: str) -> list[tuple[str, int]]:
    system, inner = storage.filesystem(root)
    with storage.storage_errors("look at", root):
        inside = system.get_file_info(fs.FileSelector(inner, recursive=True))
    files = [(info.path[len(inner) :].lstrip("/"), info.size) for info in inside if info.is_file]
    return sorted(file for file in files if not any(s.startswith(".") for s in file[0].split("/")))


def _why_not(name: str, size: int) -> str | None:
    if not name.lower().endswith(tuple(SUFFIXES)):
        return "no_picture"
    if "/" not in name:
        return "no_class"
    return None if size else "empty_file"


def _table(found: Sequence[tuple[int, str, int]], root: str, settings: EvalSet) -> pa.Table:
    names = [name for _, name, _ in found]
    classes = [name.partition("/")[0] for name in names]
    label = {name: settings.label(name) for name in set(classes)}
    return pa.table(
        {
            "pair_id": names,
            "shard": [storage.join(root, name) for name in names],
            "caption": [label[name] for name in classes],
            "image_offset": np.zeros(len(found), np.int64),
            "image_length": [size for _, _, size in found],
            "class": classes,
        },
        schema=COLUMNS,
    )


def _reader(table: pa.Table) -> ReadRows:
    def read(shard: int, first: int, last: int, columns: Sequence[str]) -> pa.Table:
        return table.slice(shard * PICTURES_TOGETHER + first, last - first).select(list(columns))

    return read
