"""Fetch every image once, decode it once, and store what training needs.

img2dataset's machinery runs each part; see `pipeline/pictures/via_img2dataset.py` for what is its and what is
ours. The stored images lie in tars beside the parts, ordered by pair, whatever came back first.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from pydantic import Field, field_validator

from pipeline import schemas
from pipeline.errors import InputError, StorageError
from pipeline.ingest import IngestConfig, find_root
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.settings import Settings, pace
from pipeline.runtime.stage import TaskOutput, begin
from pipeline.runtime.workspace import Workspace

REASONS = {
    "bad_url": "no http(s) address, or a redirect to one that is none or from https to http",
    "dns": "the host name does not resolve",
    "private_address": "the host, or one it redirects to, has no public address",
    "connection": "the connection was refused, was lost, or ended before the whole file had come",
    "tls": "no trusted encrypted connection: certificate or protocol",
    "timeout": "the whole fetch took longer than allowed",
    "bad_response": "the answer is not HTTP",
    "http_NNN": "the server answered with that status, such as http_404",
    "too_many_redirects": "more redirects than are followed",
    "robots_tag": "the X-Robots-Tag header forbids the use",
    "content_encoding": "the body came compressed although that was not asked for",
    "too_large": "more bytes than allowed, announced or sent",
    "empty": "the body has no bytes",
    "not_an_image": "the bytes are no JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF (SVG, HTML, ...)",
    "truncated_image": "the file ends before its picture does",
    "broken_image": "the file cannot be decoded, or only with damage",
    "too_many_pixels": "the header announces more pixels than allowed; nothing was decoded",
    "too_small": "the smaller side is below the minimum",
    "aspect": "the picture is too elongated",
    "not_captured": "no archive that was ingested holds the image",
    "broken_capture": "the archive's record of the image cannot be read, or is of another address",
}

ResizeMode = Literal["keep_ratio", "keep_ratio_largest", "center_crop", "border", "no"]


class DownloadConfig(Settings):
    """Fetch the images, check and measure them, and store them resized."""

    images_from: Literal["web", "captures", "both"] = "web"
    """ask the web, take the images that the ingested archives hold, or these first and the web for the rest"""
    archives: str = pace("")
    """folder or URL where the ingested archives lie now; by default where ingest read them"""
    image_size: int = Field(256, ge=16, le=8192)
    """side in pixels to which larger pictures are reduced; smaller ones stay as they are"""
    resize_mode: ResizeMode = "keep_ratio"
    """what has that side: the shorter (keep_ratio, and center_crop to a square), the longer (keep_ratio_largest, and border to a white square), or neither (no)"""
    jpeg_quality: int = Field(95, ge=1, le=100)
    """quality of pictures that are encoded anew; those that fit as they came are not"""
    min_side: int = Field(0, ge=0)
    """drop pictures whose smaller side has fewer pixels, as fetched (DataComp: 200)"""
    max_aspect: float = Field(0.0, ge=0)
    """drop pictures more elongated than this, longer side by smaller (DataComp: 3); 0 for any"""
    timeout_s: float = Field(10.0, gt=0)
    """seconds for one image, from connecting to the last byte, redirects included"""
    max_bytes: int = Field(20_000_000, ge=1)
    """largest file fetched"""
    max_pixels: int = Field(50_000_000, ge=1, le=150_000_000)
    """largest picture decoded, by the size its header announces"""
    threads: int = pace(32, ge=1, le=1024)
    """requests at a time in each worker process"""
    per_host: int = pace(2, ge=1)
    """requests at a time to one host, in each worker process"""
    user_agent: str = Field("witmill/0.1", pattern=r"^[\x21-\x7e][\x20-\x7e]*$")
    """name and version under which to ask; owners may address the name in X-Robots-Tag"""
    contact: str = pace("", pattern=r"^[\x20-\x7e]*$")
    """page or mail address of whoever runs this, sent along so that owners can complain"""
    allow_addresses: tuple[str, ...] = ()
    """address ranges to reach although they are not public, such as 10.1.0.0/16"""

    @field_validator("allow_addresses")
    @classmethod
    def _are_networks(cls, ranges: tuple[str, ...]) -> tuple[str, ...]:
        for text in ranges:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"address ranges such as 10.1.0.0/16; {error}") from error
        return ranges

    @field_validator("max_aspect")
    @classmethod
    def _allows_some_shape(cls, ratio: float) -> float:
        if 0 < ratio < 1:
            raise ValueError("0, for any shape, or 1 and more")
        return ratio

    @property
    def full_user_agent(self) -> str:
        """The User-Agent header."""
        return f"{self.user_agent} (+{self.contact})" if self.contact else self.user_agent


@dataclass(frozen=True, kw_only=True)
class DownloadTask:
    """Download the images of one part.

    Attributes:
        captures: lists of what the archives below `archives` hold; none where they are not to be used.
    """

    part: Part
    config: DownloadConfig
    output: TaskOutput
    captures: tuple[Part, ...] = ()
    archives: str = ""


def run(config: DownloadConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Get the images of every pair that "balance" kept.

    Raises:
        InputError: if all are to come from captures and there are none.
    """
    reads = ["balance"] if config.images_from == "web" else ["balance", "ingest"]
    captures, archives = _captures(config, workspace)
    stage = begin("download", config, workspace, reads=reads)
    if stage.done:
        return stage.done
    tasks = [
        DownloadTask(
            part=part,
            config=config,
            output=stage.output(i),
            captures=captures,
            archives=archives,
        )
        for i, part in enumerate(stage.parts("balance"))
    ]
    return stage.finish(stage.map(executor, "download", download_part, tasks))


def _captures(config: DownloadConfig, workspace: Workspace) -> tuple[tuple[Part, ...], str]:
    if config.images_from == "web":
        return (), ""
    ingested = workspace.finished("ingest")
    captures = tuple(ingested.tables.get("captures", []))
    if config.images_from == "captures" and not captures:
        raise InputError(
            "download.images_from is captures, but what ingest read holds no images; "
            "expected WARC files with images or tars of them, or images_from web"
        )
    if not captures or config.archives:
        return captures, config.archives
    known = IngestConfig.model_fields.keys() & ingested.settings.keys()
    given = {name: ingested.settings[name] for name in known}
    try:
        return captures, find_root(IngestConfig(**given))
    except StorageError as error:
        raise StorageError(
            f"{error}; --archives names where the files that ingest read lie now"
        ) from error


def download_part(task: DownloadTask) -> Outcome:
    """Download one part: its tar first, then its table."""
    # Pillow, urllib3 and img2dataset are not needed, nor perhaps installed, where text is curated.
    from pipeline.pictures.stored import DownloadedPart

    output = task.output
    pairs = output.read(task.part, schemas.BALANCED)
    with DownloadedPart(pairs, task.config) as part:
        part.fetch(_fetch_function(task, pairs))
        tar = part.write_tar(output.workspace, output.name("tar", "images"))
        kept, drops = part.tables(tar.path)
        return output.write(
            rows_in=pairs.num_rows,
            kept=kept,
            schema=schemas.DOWNLOADED,
            drops=drops,
            files={"images": [tar]},
            counters={"urls": part.urls, "bytes_fetched": part.bytes_fetched},
        )


def _fetch_function(task: DownloadTask, pairs: pa.Table) -> Callable[[str], bytes]:
    from pipeline.pictures.archives import Archives, find_captures
    from pipeline.pictures.fetch import Fetcher, product_token
    from pipeline.pictures.stored import limits_of

    limits = limits_of(task.config)
    ask_web = Fetcher(limits).fetch
    if task.config.images_from == "web":
        return ask_web
    return Archives(
        root=task.archives,
        places=find_captures(task.captures, pairs.column("url"), task.output),
        max_bytes=limits.max_bytes,
        agents=frozenset({product_token(limits.user_agent), *limits.robots_tokens}),
        otherwise=ask_web if task.config.images_from == "both" else None,
    ).fetch
