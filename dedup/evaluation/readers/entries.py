"""What every reader gives of a picture, and what a picture's name says of it."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from dedup.evaluation.readers.settings import EvalSet
from pipeline.errors import InputError
from pipeline.runtime import storage

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
# Larger than any picture of a known evaluation set; an archive that promises more is not unpacked.
MAX_ITEM_BYTES = 256 << 20
# Pictures that one task reads.
PIECE_ITEMS = 5000

_SPLIT = re.compile(r"(?:train(?:ing)?|val(?:id(?:ation)?)?|dev|test(?:ing)?)(?:20\d\d)?")
_SPLIT_IN_NAME = re.compile(rf"(?<![A-Za-z])(?:{_SPLIT.pattern})(?![A-Za-z])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture of a set, not read yet.

    Attributes:
        item: names it within the set, such as "boot/0012.png" or "test.parquet#17".
        class_name: as the set calls its class; None where it names none.
        label: the class in words, where the set has them; else `EvalSet.label` makes them.
        split: such as "test"; empty where the set has none.
        read: gives its bytes, only until the next entry is asked for; None for captions without a picture.
        is_original: False where the set holds pixels, which `read` encodes as PNG.
    """

    item: str
    class_name: str | None = None
    label: str | None = None
    split: str = ""
    captions: tuple[str, ...] = ()
    read: Callable[[], bytes] | None
    is_original: bool = True


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A share of a set that is read by itself: a file or folder, or some of its pictures.

    `split` is known where all of the piece is of one; `count` None means all from `first` on.
    """

    path: str
    split: str | None = None
    first: int = 0
    count: int | None = None


def _none_beside(evalset: EvalSet) -> list[str]:
    return []


class Reader(NamedTuple):
    """How one format is read.

    `beside` names the files read that need not be at the set's `path`; of labels, for one. `whole` gives
    pieces for who reads all of them, where cutting a set into shares costs a pass over it.
    """

    pieces: Callable[[EvalSet], list[Piece]]
    read: Callable[[EvalSet, Piece], Iterator[Entry]]
    beside: Callable[[EvalSet], list[str]] = _none_beside
    whole: Callable[[EvalSet], list[Piece]] | None = None


class Place(NamedTuple):
    """What the name of a picture says."""

    class_name: str | None
    split: str


def place_of(name: str, pattern: str) -> Place | None:
    """Return what `name` says of a picture, None if it is none: hidden, or not named like a picture.

    Without a pattern, the folder that directly holds it is its class, and one above may be its split;
    where none above is, and the folder itself is called like a split, it is that and no class.
    """
    path = PurePosixPath(name)
    if is_hidden(name) or path.suffix.lower() not in SUFFIXES:
        return None
    if pattern:
        found = re.search(pattern, name)
        groups = found.groupdict() if found else {}
        return Place(groups.get("label"), groups.get("split") or "") if found else None
    folders = path.parts[:-1]
    split = next((i for i, folder in enumerate(folders) if _SPLIT.fullmatch(folder)), None)
    is_class = bool(folders) and split != len(folders) - 1
    return Place(folders[-1] if is_class else None, "" if split is None else folders[split])


def is_hidden(name: str) -> bool:
    """Return whether a name below a set is hidden, or lies in a hidden folder."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def root_of(evalset: EvalSet) -> str:
    """Return the folder of the set, or the one that holds its file or all of its pattern."""
    if storage.size(evalset.path) is not None:
        return storage.parent(evalset.path)
    if storage.is_pattern(evalset.path):
        return storage.fixed_folder(evalset.path)
    return evalset.path


def below(folder: str, path: str) -> str:
    """Return the path of a file within a folder, `.` included, by which pictures in it are named."""
    return path.removeprefix(folder).lstrip("/")


def split_of(path: str) -> str:
    """Return the split that a file's name speaks of, or its folder's; empty if neither does.

    "test-00000-of-00002.parquet" and "captions_val2017.json" do, and so do a folder's files "test/0.tar".
    """
    name = path.rpartition("/")[2]
    if sharded := re.match(r"(.+?)-\d{5}-of-\d{5}", name):
        return sharded[1]
    if found := _SPLIT_IN_NAME.search(name):
        return found[0].lower()
    folder = path.rpartition("/")[0].rpartition("/")[2]
    return folder if _SPLIT.fullmatch(folder) else ""


def class_of(number: int, names: Sequence[str], evalset: EvalSet, item: str) -> str | None:
    """Return the class with a number: its name, or the number itself where the set names none.

    None for -1, by which sets withhold the classes of their test split.

    Raises:
        InputError: if there are names, but none of this number.
    """
    if number == -1:
        return None
    if names and not 0 <= number < len(names):
        raise InputError(
            f"{evalset.where}: {item} is of class {number}, expected 0 to {len(names) - 1}"
        )
    if names:
        return names[number]
    numbers = {key for key in evalset.labels if key.isdecimal()}
    if numbers and str(number) not in numbers:
        raise InputError(
            f"{evalset.where}: {item} is of class {number}, which labels do not name; "
            f"they name {min(map(int, numbers))} to {max(map(int, numbers))}"
        )
    return str(number)


def ranges(path: str, items: int) -> list[Piece]:
    """Return pieces of a container of `items` pictures."""
    return [
        Piece(path=path, first=first, count=PIECE_ITEMS) for first in range(0, items, PIECE_ITEMS)
    ]


def clean(name: str) -> str:
    """Return a name from an archive as text: no "/" in front, no "." or "..", bytes of no encoding escaped."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "/".join(part for part in text.split("/") if part not in ("", ".", ".."))


def too_large(evalset: EvalSet, item: str, size: int) -> InputError:
    """Return the error for a picture that is larger than any is expected to be."""
    return InputError(
        f"{evalset.where}: {item} has {size} bytes, expected at most {MAX_ITEM_BYTES}"
    )
