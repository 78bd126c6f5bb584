"""The images of one part on their way from the web into a tar and a table."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.download import DownloadConfig, ResizeMode
from pipeline.pictures import images
from pipeline.pictures.fetch import Limits
from pipeline.pictures.images import ImageRefused, Picture, Pixels
from pipeline.pictures.tar import TarWriter
from pipeline.pictures.via_img2dataset import Refusal, download_all
from pipeline.runtime import storage
from pipeline.runtime.manifest import Part
from pipeline.runtime.workspace import Workspace

KEPT_FORMATS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
"""Formats whose bytes may be stored as they came, with their extension in the tar."""

SPARE_BYTES = 1 << 14
"""Bytes by which a file may exceed its own pixels and still be stored as it came."""

ROBOTS_TOKENS = ("img2dataset",)
"""Owners who shut out img2dataset by name mean what is built on it, too."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a fetched picture; the fields are columns of DOWNLOADED."""

    image_sha256: str
    image_bytes: int
    image_format: str
    width: int
    height: int
    pixel_hash: str
    pdq: bytes | None
    pdq_quality: int | None


_MEASURED = [column.name for column in fields(Measured)]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A fetched picture and the bytes to store, with their extension."""

    measured: Measured
    extension: str
    data: bytes


def limits_of(config: DownloadConfig) -> Limits:
    """Return the limits under which to fetch."""
    return Limits(
        user_agent=config.full_user_agent,
        robots_tokens=ROBOTS_TOKENS,
        timeout_s=config.timeout_s,
        max_bytes=config.max_bytes,
        per_host=config.per_host,
        allow_addresses=config.allow_addresses,
    )


def examine(data: bytes, config: DownloadConfig) -> StoredImage:
    """Decode once; apply the size rules; measure; return what is to be stored.

    Raises:
        ImageRefused: if the bytes are no picture, or one that the rules exclude.
    """
    picture = images.decode(data, max_pixels=config.max_pixels)
    _check_size(picture.width, picture.height, config)
    pdq, quality = images.pdq(picture.rgb) or (None, None)
    measured = Measured(
        image_sha256=hashlib.sha256(data).hexdigest(),
        image_bytes=len(data),
        image_format=picture.format,
        width=picture.width,
        height=picture.height,
        pixel_hash=images.pixel_hash(picture.rgb),
        pdq=pdq,
        pdq_quality=quality,
    )
    return StoredImage(measured, *_to_store(picture, data, config))


def _check_size(width: int, height: int, config: DownloadConfig) -> None:
    shorter, longer = sorted((width, height))
    if shorter < config.min_side:
        raise ImageRefused("too_small", f"{width}x{height}")
    if config.max_aspect and longer > config.max_aspect * shorter:
        raise ImageRefused("aspect", f"{width}x{height}")


def _to_store(picture: Picture, data: bytes, config: DownloadConfig) -> tuple[str, bytes]:
    fitted = fit(picture.rgb, config.resize_mode, config.image_size)
    is_unchanged = fitted is picture.rgb and picture.is_plain
    is_lean = len(data) <= picture.rgb.nbytes + SPARE_BYTES
    if is_unchanged and is_lean and picture.format in KEPT_FORMATS:
        return KEPT_FORMATS[picture.format], data
    return "jpg", images.encode_jpeg(fitted, config.jpeg_quality)


def fit(rgb: Pixels, mode: ResizeMode, size: int) -> Pixels:
    """Return the picture reduced as `mode` says, or `rgb` itself where nothing is to be done.

    Pictures are never enlarged; "border" pads smaller ones, too.
    """
    if mode == "no":
        return rgb
    if mode in ("keep_ratio", "center_crop"):
        reduced = _reduced(rgb, size / min(rgb.shape[:2]))
        return _cropped(reduced, size) if mode == "center_crop" else reduced
    reduced = _reduced(rgb, size / max(rgb.shape[:2]))
    return _padded(reduced, size) if mode == "border" else reduced


def _reduced(rgb: Pixels, scale: float) -> Pixels:
    if scale >= 1:
        return rgb
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    return images.resize(rgb, width=width, height=height)


def _cropped(rgb: Pixels, size: int) -> Pixels:
    height, width = rgb.shape[:2]
    if max(height, width) <= size:
        return rgb
    top, left = max(0, height - size) // 2, max(0, width - size) // 2
    return rgb[top : top + size, left : left + size]


def _padded(rgb: Pixels, size: int) -> Pixels:
    height, width = rgb.shape[:2]
    if (height, width) == (size, size):
        return rgb
    page = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    page[top : top + height, left : left + width] = rgb
    return page


@dataclass(frozen=True, slots=True)
class _Spooled:
    measured: Measured
    extension: str
    offset: int
    length: int


@dataclass
class DownloadedPart:
    """The images of one part: fetched into a spool file, then put into a tar in a fixed order.

    URLs are asked in the order of their smallest pair_id, which is a hash and so mixes hosts, and
    each is asked once. The spool keeps memory small: a part's images may be many gigabytes.
    """

    pairs: pa.Table
    config: DownloadConfig
    bytes_fetched: int = 0
    _ranks: dict[str, int] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)
    _answers: list[_Spooled | Refusal | None] = field(default_factory=list)
    _tar_offsets: dict[int, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        order = pc.sort_indices(self.pairs.column("pair_id"))
        asked = self.pairs.select(["url", "pair_id"]).take(order)
        for url, pair_id in zip(*(asked.column(i).to_pylist() for i in (0, 1)), strict=True):
            if url not in self._ranks:
                self._ranks[url] = len(self._names)
                self._names.append(pair_id)
        self._answers = [None] * self.urls
        self._spool = tempfile.TemporaryFile()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._spool.close()

    @property
    def urls(self) -> int:
        """Distinct URLs of the part."""
        return len(self._names)

    def fetch(self, fetch: Callable[[str], bytes]) -> None:
        """Ask `fetch` for every URL and examine what comes; see `download_all`."""
        config = self.config
        download_all(
            list(self._ranks),
            fetch=fetch,
            process=lambda data: examine(data, config),
            deliver=self._take,
            threads=config.threads,
        )

    def _take(self, rank: int, answer: StoredImage | Refusal) -> None:
        if isinstance(answer, Refusal):
            self._answers[rank] = answer
            return
        self.bytes_fetched += answer.measured.image_bytes
        offset = self._spool.tell()
        self._spool.write(answer.data)
        self._answers[rank] = _Spooled(answer.measured, answer.extension, offset, len(answer.data))

    def write_tar(self, workspace: Workspace, path: str) -> Part:
        """Write the stored images to `path` in the workspace; return the file."""
        with storage.atomic_output(workspace.path(path)) as file, TarWriter(file) as tar:
            for rank, answer in enumerate(self._answers):
                if isinstance(answer, _Spooled):
                    self._spool.seek(answer.offset)
                    data = self._spool.read(answer.length)
                    name = f"{self._names[rank]}.{answer.extension}"
                    self._tar_offsets[rank], _ = tar.add(name, data)
        count = len(self._tar_offsets)
        return Part(path=path, rows=count, bytes=file.size, sha256=file.sha256)

    def tables(self, tar: str) -> tuple[pa.Table, pa.Table]:
        """Return DOWNLOADED and DROPS of the part, in its order; `tar` is where the images are."""
        ranks = [self._ranks[url] for url in self.pairs.column("url").to_pylist()]
        answers = [self._answers[rank] for rank in ranks]
        kept = [row for row, answer in enumerate(answers) if isinstance(answer, _Spooled)]
        stored = [answer for answer in answers if isinstance(answer, _Spooled)]
        columns = {name: [getattr(s.measured, name) for s in stored] for name in _MEASURED}
        columns["image_file"] = [tar] * len(kept)
        columns["image_offset"] = [self._tar_offsets[ranks[row]] for row in kept]
        columns["image_length"] = [s.length for s in stored]
        table = self.pairs.take(pa.array(kept, pa.int64()))
        for name, values in columns.items():
            column = schemas.DOWNLOADED.field(name)
            table = table.append_column(column, pa.array(values, column.type))
        return table, self._drops(answers)

    def _drops(self, answers: Sequence[_Spooled | Refusal | None]) -> pa.Table:
        refused = [(i, answer) for i, answer in enumerate(answers) if isinstance(answer, Refusal)]
        rows = pa.array([i for i, _ in refused], pa.int64())
        return pa.table(
            [
                self.pairs.column("pair_id").take(rows),
                pa.array([refusal.reason for _, refusal in refused], pa.string()),
                pa.array([refusal.detail for _, refusal in refused], pa.string()),
            ],
            schema=schemas.DROPS,
        )
