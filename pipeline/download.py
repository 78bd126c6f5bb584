"""Fetch every image once, decode it once, and store what training needs.

img2dataset's machinery runs each part; see `pipeline/downloading/via_img2dataset.py` for what is its and what is
ours. The stored images lie in tars beside the parts, ordered by pair, whatever came back first.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pyarrow as pa
from pydantic import Field, field_validator

from pipeline import schemas
from pipeline.errors import InputError, StorageError
from pipeline.ingest import IngestConfig, find_root
from pipeline.runtime import storage
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.settings import Settings, pace
from pipeline.runtime.stage import StageRun, TaskOutput, begin, reopen
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
    "tdm_reservation": "the tdm-reservation header reserves text and data mining",
    "robots_txt": "the host's robots.txt disallows the address",
    "robots_unreachable": "the host answers for robots.txt with an error, so nothing there may be fetched",
    "blocked": "the block list names the address, its host or the picture",
    "host_busy": "the host wanted to be left alone for longer than `max_wait_s`, and was not asked",
    "content_encoding": "the body came compressed although that was not asked for",
    "too_large": "more bytes than allowed, announced or sent",
    "empty": "the body has no bytes",
    "not_an_image": "the bytes are no JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF (SVG, HTML, ...)",
    "truncated_image": "the file ends before its picture does",
    "broken_image": "the file cannot be decoded, or only with damage",
    "too_many_pixels": "the header announces more pixels than allowed; nothing was decoded",
    "too_compressed": "the header announces more than 1,000 pixels for each byte; nothing was decoded",
    "too_long": "a side of what is to be stored exceeds its format (JPEG 65,500 pixels, WebP 16,383)",
    "too_few_bytes": "the file is smaller than the minimum",
    "too_small": "the smaller side is below the minimum",
    "aspect": "the picture is too elongated",
    "not_captured": "no archive that was ingested holds the image",
    "broken_capture": "the archive's record of the image cannot be read, or is of another address",
}

EncodeFormat = Literal["jpg", "png", "webp"]
ResizeMode = Literal["keep_ratio", "keep_ratio_largest", "center_crop", "border", "no"]


class DownloadConfig(Settings):
    """Fetch the images, check and measure them, and store them resized.

    Once it has finished, `witmill download --workspace runs/first --retry timeout,dns,http_5` asks
    again for what was dropped for these reasons, and for nothing else.
    """

    images_from: Literal["web", "captures", "both"] = "web"
    """ask the web, take the images that the ingested archives hold, or these first and the web for the rest"""
    archives: str = pace("")
    """folder or URL where the ingested archives lie now; by default where ingest read them"""
    image_size: int = Field(256, ge=16, le=8192)
    """side in pixels to which larger pictures are reduced; smaller ones stay as they are"""
    resize_mode: ResizeMode = "keep_ratio"
    """what has that side: the shorter (keep_ratio, and center_crop to a square), the longer (keep_ratio_largest, and border to a white square), or neither (no)"""
    encode_format: EncodeFormat = "jpg"
    """format of pictures that are encoded anew"""
    encode_quality: int = Field(95, ge=1, le=100)
    """quality at which they are, as JPEG or WebP; PNG loses nothing"""
    skip_reencode: bool = True
    """store a JPEG, PNG or WebP that fits already as it came, with whatever else the file holds"""
    min_side: int = Field(0, ge=0)
    """drop pictures whose smaller side has fewer pixels, as fetched (DataComp: 200)"""
    max_aspect: float = Field(0.0, ge=0)
    """drop pictures more elongated than this, longer side by smaller (DataComp: 3); 0 for any"""
    min_bytes: int = Field(0, ge=0)
    """drop files of fewer bytes (LAION: 5000)"""
    timeout_s: float = pace(10.0, gt=0)
    """seconds for one image, from connecting to the last byte, redirects included"""
    max_bytes: int = Field(20_000_000, ge=1)
    """largest file fetched"""
    max_pixels: int = Field(50_000_000, ge=1, le=150_000_000)
    """largest picture decoded, by the size its header announces"""
    threads: int = pace(256, ge=1, le=1024)
    """requests at a time in each worker process"""
    per_host: int = pace(2, ge=1)
    """requests at a time to one host, in each worker process"""
    per_host_rate: float = pace(10.0, ge=0)
    """requests a second to one host, by all worker processes of a machine; 0 for any"""
    max_wait_s: float = pace(60.0, ge=0)
    """longest that a host which answers 429 or 503 may make us wait; each file is asked for three times at most"""
    robots: Literal["respect", "ignore"] = "respect"
    """heed robots.txt, which is read once for each host, or ignore it"""
    blocklist: str = ""
    """file with a host, address, sha256:HEX or pdq:HEX of what to leave out in each line"""
    allow_downgrade: bool = False
    """follow redirects from https to http"""
    user_agent: str = Field("witmill/0.1", pattern=r"^[\x21-\x7e][\x20-\x7e]*$")
    """name and version under which to ask; owners may address the name in X-Robots-Tag"""
    contact: str = pace("", pattern=r"^[\x20-\x7e]*$")
    """page or mail address of whoever runs this, sent along so that owners can complain"""
    allow_addresses: tuple[str, ...] = ()
    """address ranges to reach although they are not public, such as 10.1.0.0/16"""
    max_unreachable: float = pace(0.9, gt=0, le=1)
    """stop when more than this share of the last 200 hosts cannot be reached at all; 1 for never"""
    retry: tuple[str, ...] = pace(())
    """of a finished download, ask again for what was dropped for these reasons, such as timeout,dns,http_5; all for any"""

    @field_validator("allow_addresses")
    @classmethod
    def _are_networks(cls, ranges: tuple[str, ...]) -> tuple[str, ...]:
        for text in ranges:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"address ranges such as 10.1.0.0/16; {error}") from error
        return ranges

    @field_validator("retry")
    @classmethod
    def _are_apart(cls, reasons: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(",".join(reasons).replace(",", " ").split()))

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
        journal: folder for what is known of them so far.
        robots: folder with what the robots.txt files say.
        captures: lists of what the archives below `archives` hold; none where they are not to be used.
    """

    part: Part
    config: DownloadConfig
    output: TaskOutput
    journal: str
    robots: str
    captures: tuple[Part, ...]
    archives: str


def run(config: DownloadConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Get the images of every pair that "balance" kept, or ask again for some that were dropped.

    Raises:
        InputError: if all are to come from captures and there are none.
        MissingInput: if some are to be asked for again and the stage has not finished.
        TaskFailed: if the network is down, among others.
    """
    reads = ["balance"] if config.images_from == "web" else ["balance", "ingest"]
    files = {"blocklist": config.blocklist} if config.blocklist else {}
    captures, archives = _captures(config, workspace)
    start = reopen if config.retry else begin
    stage = start("download", config, workspace, reads=reads, files=files)
    tasks = partial(_tasks, captures=captures, archives=archives)
    if not stage.done:
        return _download(stage, config, tasks(stage, config), executor)
    if not config.retry:
        return stage.done
    from pipeline.downloading.retry import ask_again

    return ask_again(stage, stage.done, config, tasks, executor)


def _tasks(
    stage: StageRun, config: DownloadConfig, *, captures: tuple[Part, ...], archives: str
) -> list[DownloadTask]:
    answers = stage.scratch(f"answers-{stage.revision}")
    return [
        DownloadTask(
            part=part,
            config=config,
            output=stage.output(i),
            journal=storage.join(answers, f"{i:05d}"),
            robots=stage.scratch(f"robots-{stage.revision}"),
            captures=captures,
            archives=archives,
        )
        for i, part in enumerate(stage.parts("balance"))
    ]


def _download(
    stage: StageRun, config: DownloadConfig, tasks: Sequence[DownloadTask], executor: Executor
) -> Manifest:
    from pipeline.downloading.hosts import HostsTask, sum_up_hosts
    from pipeline.downloading.robots_steps import read_all_robots

    robots = read_all_robots(stage, executor, config, urls_of, tasks)
    outcomes = stage.map(executor, "download", download_part, tasks)
    hosts = [part for outcome in outcomes for part in outcome.parts.get("hosts", [])]
    summary = HostsTask(answers=tuple(hosts), output=stage.output(0))
    summed_up = stage.map(executor, "hosts", sum_up_hosts, [summary])
    return stage.finish([*robots, *outcomes, *summed_up])


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


def urls_of(task: DownloadTask) -> pa.ChunkedArray:
    """Return the URLs of a part."""
    return task.output.read(task.part, schemas.BALANCED, ["url"]).column("url")


def download_part(task: DownloadTask) -> Outcome:
    """Download one part: its tar first, then its table."""
    from pipeline.downloading.stored import DownloadedPart

    output = task.output
    pairs = output.read(task.part, schemas.BALANCED)
    part = DownloadedPart(pairs, task.config, task.journal)
    counters = part.fetch(task)
    tar = part.write_tar(output.workspace, output.name("tar", "images"))
    kept, drops = part.tables(tar.path)
    return output.write(
        rows_in=pairs.num_rows,
        kept=kept,
        schema=schemas.DOWNLOADED,
        drops=drops,
        every_drop=True,
        side={"hosts": (part.host_answers(), schemas.HOST_ANSWERS)},
        files={"images": [tar]},
        counters={"urls": part.urls, **counters},
    )
