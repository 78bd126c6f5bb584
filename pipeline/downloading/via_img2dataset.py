"""Run img2dataset's `Downloader` over a part's URLs, with our own fetch and our own picture code.

Of img2dataset this uses what runs one shard: the thread pool, the limit on files waiting in memory
and the order of steps. Put in its place are

* `download_image_with_retry`, the one function of its module that is replaced, by `_Fetch`: its own
  has no address check, no size limit and no deadline, and takes URLs in the order of the list,
  where ours asks `Turns` which is next;
* the resizer object, by `_Process`: its own decodes without looking at the size first, and would
  make a second decode necessary for the hashes;
* the sample writer, by `_Writer`, which hands results on.

Its `Downloader` prints and forgets exceptions, and hangs on one that leaves the fetch function, so
none may reach it: the first is kept and raised again at the end. All of this costs 60 microseconds
of processor time an image.
"""

import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import pyarrow as pa

from pipeline.downloading.turns import Turns
from pipeline.fetching.fetch import FetchRefused
from pipeline.pictures.images import ImageRefused

Result = TypeVar("Result")

_STOPPED = "stopped"


@dataclass(frozen=True)
class Refusal:
    """Why there is no picture: a reason code, and what was seen."""

    reason: str
    detail: str | None = None

    def __str__(self) -> str:
        return self.reason if self.detail is None else f"{self.reason}: {self.detail}"

    @classmethod
    def parse(cls, text: str) -> "Refusal":
        """Undo `str`; img2dataset knows only strings as errors."""
        reason, colon, detail = text.partition(": ")
        return cls(reason, detail if colon else None)


def download_all(
    turns: Turns,
    *,
    fetch: Callable[[int], bytes],
    process: Callable[[int, bytes], Result],
    deliver: Callable[[int, Result | Refusal], None],
    threads: int,
) -> None:
    """Call `deliver` once for each position of `turns`, as results come in.

    Args:
        fetch: called with a position from `threads` threads; may raise FetchRefused.
        process: called with a position and what `fetch` returned, one at a time; may raise
            ImageRefused.
        deliver: called one at a time.
    """
    count = len(turns)
    if not count:
        return
    downloader = _module()
    run = _Run(turns=turns, process=process, deliver=deliver)
    with tempfile.TemporaryDirectory(prefix="witmill-") as folder, _replaced(run, fetch):
        listed = str(Path(folder) / "urls.arrow")
        table = pa.table({"url": pa.nulls(count, pa.string())})
        with pa.ipc.new_file(listed, table.schema) as file:
            file.write_table(table)
        shard = downloader.Downloader(
            sample_writer_class=partial(_Writer, run),
            resizer=_Process(run),
            thread_count=min(threads, count),
            save_caption=False,
            extract_exif=False,
            output_folder=folder,
            column_list=["url"],
            timeout=0,
            number_sample_per_shard=count,
            oom_shard_count=1,
            compute_hash=None,
            verify_hash_type=None,
            encode_format="jpg",
            retries=0,
            user_agent_token=None,
            disallowed_header_directives=None,
        )
        _let_finish(run, partial(shard.download_shard, (0, listed)))
    if run.failure is not None:
        raise run.failure
    if run.delivered != count:
        raise RuntimeError(f"img2dataset delivered {run.delivered} of {count} results")


def _let_finish(run: "_Run[Any]", work: Callable[[], None]) -> None:
    # In a thread of its own, because Ctrl-C in the middle of it would leave its thread pool waiting
    # for ever; this way it runs out, with nothing more being asked for.
    with ThreadPoolExecutor(1) as thread:
        finished = thread.submit(work)
        try:
            finished.result()
        except BaseException as error:
            run.fail(error)
            raise


@cache
def _module() -> ModuleType:
    # Else albumentations, which img2dataset imports, asks PyPI for a newer version of itself.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import img2dataset.downloader
    module: ModuleType = img2dataset.downloader
    return module


class _Run(Generic[Result]):
    """What the three parts share: where results go, and the first failure."""

    def __init__(
        self,
        *,
        turns: Turns,
        process: Callable[[int, bytes], Result],
        deliver: Callable[[int, Result | Refusal], None],
    ) -> None:
        self.turns = turns
        self.process = process
        self.deliver = deliver
        self.delivered = 0
        self.failure: BaseException | None = None
        self._lock = threading.Lock()

    def fail(self, error: BaseException) -> None:
        with self._lock:
            self.failure = self.failure or error


@contextmanager
def _replaced(run: _Run[Any], fetch: Callable[[int], bytes]) -> Iterator[None]:
    module = _module()
    original = module.download_image_with_retry
    module.download_image_with_retry = _Fetch(run, fetch)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.download_image_with_retry = original  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Body:
    """Stands for the stream of a fetched file, and knows which it is."""

    position: int
    data: bytes

    def seek(self, _: int) -> None:
        """There is no place in it."""

    def close(self) -> None:
        """Nothing is open."""


class _Fetch:
    """Stands for `img2dataset.downloader.download_image_with_retry`."""

    def __init__(self, run: _Run[Any], fetch: Callable[[int], bytes]) -> None:
        self._run = run
        self._fetch = fetch

    def __call__(self, row: tuple[int, None], **_: Any) -> tuple[int, _Body | None, str | None]:
        if self._run.failure is not None:
            return row[0], None, _STOPPED
        position = self._run.turns.take()
        data = b""
        try:
            data = self._fetch(position)
        except FetchRefused as refused:
            return position, None, str(Refusal(refused.reason, refused.detail))
        except Exception as error:  # noqa: BLE001 - raised again by download_all
            self._run.fail(error)
            return position, None, _STOPPED
        finally:
            self._run.turns.fetched(position, len(data))
        return position, _Body(position, data), None


class _Process:
    """Stands for `img2dataset.resizer.Resizer`: image, its size, the original's size, error."""

    def __init__(self, run: _Run[Any]) -> None:
        self._run = run

    def __call__(self, body: _Body, _: object = None) -> tuple[Any, None, None, None, None, Any]:
        try:
            if self._run.failure is None:
                image = self._run.process(body.position, body.data)
                return image, None, None, None, None, None
            refusal = _STOPPED
        except ImageRefused as refused:
            refusal = str(Refusal(refused.reason, refused.detail))
        except Exception as error:  # noqa: BLE001 - raised again by download_all
            self._run.fail(error)
            refusal = _STOPPED
        finally:
            self._run.turns.decoded(len(body.data))
        return None, None, None, None, None, refusal


class _Writer:
    """Stands for `img2dataset.writer.WebDatasetSampleWriter`."""

    def __init__(self, run: _Run[Any], *_: object) -> None:
        self._run = run

    def write(self, result: Any, key: str, _: object, meta: dict[str, Any]) -> None:
        """Hand on the result for position `key`."""
        if self._run.failure is not None:
            return
        error = meta["error_message"]
        try:
            self._run.deliver(int(key), result if error is None else Refusal.parse(error))
        except Exception as failure:  # noqa: BLE001 - raised again by download_all
            self._run.fail(failure)
        self._run.delivered += 1

    def close(self) -> None:
        """Nothing is held."""
