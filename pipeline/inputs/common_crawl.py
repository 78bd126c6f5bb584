"""Name the files of a Common Crawl crawl: its list of paths, and which of them are chosen."""

import gzip
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from pipeline.errors import ConfigError, InputError, StorageError
from pipeline.inputs.files import Input
from pipeline.runtime import storage

COMMON_CRAWL = "https://data.commoncrawl.org"

CrawlKind = Literal["wat", "warc"]

_MAX_LIST_BYTES = 1 << 30
_RANGE = re.compile(r"(\d*)(?:(:)(\d*)(?::([1-9]\d*))?)?")
_PATH = re.compile(r"[A-Za-z0-9_=+-][A-Za-z0-9_.=+-]*(?:/[A-Za-z0-9_=+-][A-Za-z0-9_.=+-]*)*")


class Choice(NamedTuple):
    """Places in a list, as a slice says: from `first` on, before `after`, every `step`th."""

    first: int
    after: int | None
    step: int


def parse_choices(texts: Iterable[str]) -> list[Choice]:
    """Return what "0:100", "5" or "0:100:10", or several of them with commas between, choose.

    Raises:
        ValueError: if one of `texts` is something else.
    """
    choices = []
    for text in (piece.strip() for given in texts for piece in given.split(",")):
        found = _RANGE.fullmatch(text)
        if not text or not found:
            raise ValueError("numbers and ranges such as 5, 0:100 or 0:100:10, counted from 0")
        first, colon, after, step = found.groups()
        start = int(first or 0)
        end = start + 1 if not colon else int(after) if after else None
        choices.append(Choice(start, end, int(step or 1)))
    return choices


def list_crawl(crawl: str, kind: CrawlKind, chosen: Sequence[str], *, mirror: str) -> list[Input]:
    """Return the chosen files of a crawl, in the order of its list; their sources do not depend on `mirror`.

    Args:
        crawl: such as "CC-MAIN-2024-22".
        chosen: see `parse_choices`.
        mirror: folder or URL below which `crawl-data/` lies.

    Raises:
        ConfigError: if a number is not in the list, or nothing is chosen.
        InputError: if the list is something else.
        StorageError: if it cannot be read.
    """
    listed = f"{mirror.rstrip('/')}/crawl-data/{crawl}/{kind}.paths.gz"
    paths = _read_paths(listed)
    numbers: set[int] = set()
    for choice in parse_choices(chosen):
        after = len(paths) if choice.after is None else choice.after
        if max(choice.first + 1, after) > len(paths):
            raise ConfigError(
                f"ingest.files goes up to {max(choice.first, after - 1):,}, "
                f"but {listed} has {len(paths):,} files, 0 to {len(paths) - 1:,}"
            )
        numbers.update(range(choice.first, after, choice.step))
    if not numbers:
        raise ConfigError(
            f"ingest.files chooses none of the {len(paths):,} files of {crawl}; "
            "expected numbers or ranges such as 0:100"
        )
    files = {number: paths[number] for number in sorted(numbers)}
    return [Input(f"{mirror.rstrip('/')}/{path}", path) for path in dict.fromkeys(files.values())]


def _read_paths(listed: str) -> list[str]:
    try:
        with storage.local_copy(listed) as path, gzip.open(path) as file:
            text = file.read(_MAX_LIST_BYTES).decode("ascii")
    except StorageError as error:
        raise StorageError(
            f"{error}; expected the list of a crawl such as CC-MAIN-2024-22, "
            "and --mirror to name what crawl-data/ lies in"
        ) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{listed} is no gzipped list of paths: {error}") from error
    paths = text.split()
    strange = next((path for path in paths if not _PATH.fullmatch(path)), None)
    if strange is not None or not paths:
        seen = repr(strange[:100]) if strange else "nothing"
        raise InputError(f"{listed} holds {seen}, expected paths such as crawl-data/CC-MAIN-...")
    return paths
