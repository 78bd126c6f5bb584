"""Evaluation sets: pictures in class folders, named in one TOML file.

```toml
[fashion]
path = "evalsets/fashion.zip"          # relative to this file
prompts = ["a photo of a {label}."]
labels = { ankle_boot = "ankle boot" }
max_distance = 31
```

The same file tells `dedup` which pictures must not be in the corpus and `evaluate` what to measure.
"""

import re
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from string import Formatter
from typing import IO

from pyarrow import fs
from pydantic import Field, field_validator

from pipeline.errors import ConfigError, InputError
from pipeline.runtime import storage
from pipeline.runtime.settings import Settings, read_settings

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
# Larger than any picture of a known evaluation set; a zip that promises more is not unpacked.
MAX_ITEM_BYTES = 256 << 20


class EvalSet(Settings):
    """A folder or zip of class folders with pictures, and how its classes are put into words."""

    name: str
    """name of the set in tables and reports"""
    path: str
    """folder of class folders, or a zip of one; relative to the TOML file that names it"""
    prompts: tuple[str, ...] = Field(("a photo of a {label}.",), min_length=1)
    """caption templates, each with {label} in it"""
    labels: dict[str, str] = Field(default_factory=dict)
    """class folder to readable name; by default the folder's name with "_" and "-" as spaces"""
    max_distance: int = Field(31, ge=0, le=63)
    """differing PDQ bits, of 256, up to which a corpus picture counts as a copy"""

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError("letters, digits, '_', '-' and '.', not first a '-' or '.'")
        return name

    @field_validator("prompts")
    @classmethod
    def _templates_with_label(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            if _fields(prompt) != {"label"}:
                raise ValueError(f"{{label}} and no other field in every template, not {prompt!r}")
        return prompts

    def label(self, folder: str) -> str:
        """Return the readable name of the class in `folder`."""
        return self.labels.get(folder, re.sub("[_-]+", " ", folder).strip() or folder)


@dataclass(frozen=True, kw_only=True)
class EvalItem:
    """One picture of a set: `item` is its path within it, such as "boot/0012.png"."""

    item: str
    label: str
    data: bytes


def read_evalsets(path: str) -> tuple[EvalSet, ...]:
    """Read the sets of a TOML file, in the order they stand there.

    Raises:
        StorageError: the file cannot be read.
        InputError: it is not TOML, or names no set.
        ConfigError: one line that names the file and every wrong key.
    """
    try:
        tables = tomllib.loads(storage.read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a TOML file: {error}") from error
    if not tables:
        raise InputError(f"{path} names no evaluation set, expected one table per set: [NAME]")
    return tuple(_read_evalset(path, name, table) for name, table in tables.items())


def files_of(path: str, evalsets: Sequence[EvalSet]) -> dict[str, str]:
    """Make sure that each set can be opened, and return what a stage that reads it depends on.

    That is the path of each set by its name, and the `path` of the TOML file under a name that no set
    can have. Of a set in an object store only the folder's or zip's list is read.

    Raises:
        InputError: as `items`, but for damage within a set.
    """
    for evalset in evalsets:
        _pictures(evalset, _names_in(evalset))
    return {"evaluation sets": path, **{evalset.name: evalset.path for evalset in evalsets}}


def items(evalset: EvalSet) -> Iterator[EvalItem]:
    """Yield the pictures of a set, sorted by item; each is read when its turn comes.

    The folder that directly holds a picture is its class. Hidden files, files outside any folder
    and files whose name does not end like a picture's are passed over.

    Raises:
        InputError: the set is absent, empty or broken, or `labels` names a folder it lacks.
    """
    with _open_set(evalset) as (names, read):
        for item in _pictures(evalset, names):
            label = evalset.label(PurePosixPath(item).parent.name)
            yield EvalItem(item=item, label=label, data=read(item))


def _fields(template: str) -> set[str | None]:
    try:
        return {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError:
        return set()


def _read_evalset(path: str, name: str, table: object) -> EvalSet:
    where = f"{path}: {name}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is {table!r}, expected a table: [{name}]")
    if "name" in table:
        raise ConfigError(f"{where}.name is not a setting: the table's own name is the set's")
    evalset = read_settings(EvalSet, {"name": name, **table}, where=where)
    return evalset.model_copy(update={"path": storage.join(storage.parent(path), evalset.path)})


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    visible = not any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return visible and path.suffix.lower() in SUFFIXES and path.parent.name != ""


def _where(evalset: EvalSet) -> str:
    return f"evaluation set {evalset.name}: {evalset.path}"


def _pictures(evalset: EvalSet, names: Iterable[str]) -> list[str]:
    """Return those of the `names` that are pictures of the set, sorted, once they are found in order."""
    pictures = sorted(name for name in names if _is_picture(name))
    where = _where(evalset)
    if not pictures:
        raise InputError(f"{where} holds no picture, expected CLASS/NAME.png, .jpg, ...")
    for item, following in pairwise(pictures):
        if item == following:
            raise InputError(f"{where} holds {item} twice")
    folders = {PurePosixPath(item).parent.name for item in pictures}
    if unknown := sorted(set(evalset.labels) - folders):
        raise InputError(
            f"{where} has no class folder {unknown[0]!r} that its labels name, "
            f"expected one of: {', '.join(sorted(folders)[:10])}"
        )
    return pictures


Opened = tuple[list[str], Callable[[str], bytes]]


@contextmanager
def _open_set(evalset: EvalSet) -> Iterator[Opened]:
    """Yield the names of a set's files and a function that reads one of them."""
    where = _where(evalset)
    if _is_folder(evalset):
        files = _files_in(evalset.path)
        yield list(files), lambda name: storage.read_bytes(files[name])
        return
    with storage.local_copy(evalset.path) as path, _open_zip(path, where=where) as archive:
        yield _entries(archive), lambda name: _unpack(archive, name, where=where)


def _names_in(evalset: EvalSet) -> list[str]:
    if _is_folder(evalset):
        return list(_files_in(evalset.path))
    # Unlike a local copy, this reads of an object no more than the list at its end.
    with (
        storage.open_input(evalset.path) as file,
        _open_zip(file, where=_where(evalset)) as archive,
    ):
        return _entries(archive)


def _is_folder(evalset: EvalSet) -> bool:
    system, inner = storage.filesystem(evalset.path)
    kind = system.get_file_info(inner).type
    if kind not in (fs.FileType.Directory, fs.FileType.File):
        raise InputError(
            f"{_where(evalset)} does not exist, expected a folder or a zip of class folders"
        )
    return bool(kind == fs.FileType.Directory)


def _files_in(folder: str) -> dict[str, str]:
    return {path[len(folder) :].lstrip("/"): path for path in storage.list_inside(folder)}


def _entries(archive: zipfile.ZipFile) -> list[str]:
    return [entry.filename for entry in archive.infolist() if not entry.is_dir()]


def _open_zip(file: str | IO[bytes], *, where: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(f"{where} is neither a folder nor a readable zip: {error}") from error


def _unpack(archive: zipfile.ZipFile, name: str, *, where: str) -> bytes:
    size = archive.getinfo(name).file_size
    if size > MAX_ITEM_BYTES:
        raise InputError(f"{where}: {name} has {size} bytes, expected at most {MAX_ITEM_BYTES}")
    # RuntimeError is how zipfile reports an encrypted entry.
    broken = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError)
    try:
        return archive.read(name)
    except broken as error:
        raise InputError(f"{where}: {name} cannot be unpacked: {error}") from error
