"""The images of one part on their way from the web into a tar and a table."""

from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.download import DownloadConfig, DownloadTask
from pipeline.downloading.hosts import UNREACHED, count_answers, hosts_of
from pipeline.downloading.journal import MEASURED, Journal
from pipeline.downloading.outage import WATCHED_HOSTS, Watch
from pipeline.downloading.sources import fetch_function, web_fetcher
from pipeline.downloading.turns import Turns
from pipeline.downloading.via_img2dataset import Refusal, download_all
from pipeline.fetching.blocklist import load_blocklist
from pipeline.pictures.examine import StoredImage, examine
from pipeline.pictures.images import ImageRefused
from pipeline.pictures.tar import TarWriter
from pipeline.runtime import storage
from pipeline.runtime.drops import drop_rows
from pipeline.runtime.manifest import Part
from pipeline.runtime.workspace import Workspace


class DownloadedPart:
    """The images of one part: fetched into a journal, then put into a tar in a fixed order.

    Each URL is asked once. Its rank is the place of its smallest pair_id, which is a hash: so the
    order of ranks mixes hosts and is that of the tar, whatever came first.
    """

    def __init__(self, pairs: pa.Table, config: DownloadConfig, folder: str) -> None:
        """Take up what a run that was killed left in `folder`."""
        self._pairs = pairs
        self._config = config
        self._journal = Journal(folder)
        self._blocklist = load_blocklist(config.blocklist) if config.blocklist else None
        order = pc.sort_indices(pairs.column("pair_id"))
        urls = pairs.column("url").take(order).combine_chunks().dictionary_encode()
        by_order = urls.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        self._ranks = np.empty(len(pairs), np.int64)
        self._ranks[order.to_numpy()] = by_order
        _, first = np.unique(by_order, return_index=True)
        self._names = pairs.column("pair_id").take(order).take(pa.array(first)).combine_chunks()
        self._urls = urls.dictionary
        self._hosts = hosts_of(self._urls)
        self._boxes = _boxes_of(pairs.column("blur_boxes"), self._ranks)
        self._answers = pa.table({})
        self._tar_offsets = np.full(len(self._urls), -1, np.int64)

    @property
    def urls(self) -> int:
        """Different URLs of the part."""
        return len(self._urls)

    def fetch(self, task: DownloadTask) -> dict[str, float]:
        """Ask for every URL that has no answer yet, and examine what comes; return what that took.

        Raises:
            NetworkDown: if too few hosts can be reached; what that may have spoilt is not kept.
        """
        column = self._pairs.column("url")
        web = web_fetcher(task, column)
        watch = Watch(self._config.max_unreachable)
        fetch = fetch_function(task, column, watch.watched(web.fetch))
        try:
            self._fetch(fetch, watch)
        finally:
            self._journal.flush()
        self._answers = self._journal.answers()
        return {
            "bytes_fetched": pc.sum(self._answers.column("image_bytes")).as_py() or 0,
            "requests": web.asked,
            "seconds_waited_for_hosts": round(web.seconds_waited, 3),
        }

    def _fetch(self, fetch: Callable[[str], bytes], watch: Watch) -> None:
        config = self._config
        todo = np.setdiff1d(np.arange(self.urls), self._journal.known())
        numbers = self._hosts.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        doubtful: deque[tuple[int, int, Refusal]] = deque()

        def deliver(position: int, answer: StoredImage | Refusal) -> None:
            rank = int(todo[position])
            if isinstance(answer, Refusal) and answer.reason in UNREACHED:
                doubtful.append((watch.round + WATCHED_HOSTS, rank, answer))
            else:
                self._journal.add(rank, answer)
            while doubtful and doubtful[0][0] <= watch.round:
                self._journal.add(*doubtful.popleft()[1:])

        download_all(
            Turns(
                numbers[todo].astype(np.int64),
                config.threads if config.images_from == "captures" else config.per_host,
            ),
            fetch=lambda position: fetch(self._urls[int(todo[position])].as_py()),
            process=lambda position, data: self._examine(int(todo[position]), data),
            deliver=deliver,
            threads=config.threads,
        )
        for _, rank, answer in doubtful:
            self._journal.add(rank, answer)

    def _examine(self, rank: int, data: bytes) -> StoredImage:
        image = examine(data, self._config, self._boxes.get(rank))
        known = image.measured
        if self._blocklist and self._blocklist.blocks_image(known.image_sha256, known.pdq):
            raise ImageRefused("blocked", "picture")
        return image

    def write_tar(self, workspace: Workspace, path: str) -> Part:
        """Write the stored images to `path` in the workspace; return the file."""
        stored = self._answers.filter(pc.is_null(self._answers.column("reason")))
        names = self._names.take(stored.column("rank"))
        columns = ("rank", "extension", "file", "image_offset", "image_length")
        rows = zip(names, *(stored.column(name) for name in columns), strict=True)
        with (
            self._journal.images() as read,
            storage.atomic_output(workspace.path(path)) as file,
            TarWriter(file) as tar,
        ):
            for row in rows:
                name, rank, extension, *place = (value.as_py() for value in row)
                self._tar_offsets[rank], _ = tar.add(f"{name}.{extension}", read(*place))
        return Part(path=path, rows=len(stored), bytes=file.size, sha256=file.sha256)

    def tables(self, tar: str) -> tuple[pa.Table, pa.Table]:
        """Return DOWNLOADED and DROPS of the part, in its order; `tar` is where the images are."""
        answers = self._answers.take(pa.array(self._ranks)).combine_chunks()
        is_stored = pc.is_null(answers.column("reason"))
        offsets = pa.array(self._tar_offsets[self._ranks])
        answers = answers.set_column(
            answers.schema.get_field_index("image_offset"), "image_offset", offsets
        )
        table, stored = self._pairs.filter(is_stored), answers.filter(is_stored)
        columns = {
            name: stored.column(name) for name in (*MEASURED, "image_offset", "image_length")
        }
        columns["image_file"] = pa.repeat(pa.scalar(tar), len(stored))
        for column in schemas.DOWNLOADED:
            if column.name in columns:
                table = table.append_column(column, columns[column.name])
        refused = answers.filter(pc.invert(is_stored))
        drops = drop_rows(
            self._pairs.column("pair_id").filter(pc.invert(is_stored)),
            refused.column("reason"),
            refused.column("detail"),
        )
        return table.combine_chunks(), drops.combine_chunks()

    def host_answers(self) -> pa.Table:
        """Return HOST_ANSWERS of the part."""
        reasons, sizes = self._answers.column("reason"), self._answers.column("image_bytes")
        return count_answers(self._hosts, reasons, sizes, self._pairs_of_urls())

    def earlier_host_answers(self, reasons: pa.Array) -> pa.Table:
        """Return the HOST_ANSWERS that the same URLs had, given why each pair was dropped."""
        _, first = np.unique(self._ranks, return_index=True)
        nothing = pa.nulls(self.urls, pa.int64())
        return count_answers(
            self._hosts, reasons.take(pa.array(first)), nothing, self._pairs_of_urls()
        )

    def _pairs_of_urls(self) -> npt.NDArray[np.int64]:
        return np.bincount(self._ranks, minlength=self.urls)


def _boxes_of(boxes: pa.ChunkedArray, ranks: npt.NDArray[np.int64]) -> dict[int, list[list[float]]]:
    """Return what is to be blurred in each URL's picture: the boxes of all pairs that have it."""
    found: dict[int, list[list[float]]] = {}
    for row in pc.indices_nonzero(pc.is_valid(boxes)).to_pylist():
        found.setdefault(int(ranks[row]), []).extend(boxes[row].as_py())
    return found
