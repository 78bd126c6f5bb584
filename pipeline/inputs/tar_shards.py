"""Read tar shards of pictures, captions and their addresses, as img2dataset writes them.

Members that share their name up to the first dot are one sample: `KEY.json` has the URL and mostly
the caption, `KEY.txt` the caption, and any other member is the picture.
"""

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pipeline.inputs.captures import Capture
from pipeline.inputs.pairs import MAX_SEEN_CHARACTERS, Reference, Skipped, make_reference, readable
from pipeline.inputs.tables import parse_json
from pipeline.pages.urls import resolve

PICTURES = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png", "webp": "webp", "gif": "gif"}
_MAX_TEXT_BYTES = 1 << 20


@dataclass
class _Sample:
    key: str
    offset: int
    texts: dict[str, bytes] = field(default_factory=dict)
    picture: tuple[int, int, str] | None = None


def read_tar(file: BinaryIO) -> Iterator[Reference | Skipped | Capture]:
    """Yield the pair of each sample, or why there is none, and where its picture lies.

    What comes behind a broken member is one drop.
    """
    file.seek(0)
    sample = None
    place = -1
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                # Else the list of members grows with the shard.
                tar.members = []  # type: ignore[attr-defined]
                if member.offset <= place:
                    raise tarfile.ReadError("a member's size leads back")
                place = member.offset
                if not member.isfile():
                    continue
                key, _, kind = member.name.rpartition("/")[2].partition(".")
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield from _pair(sample)
                    sample = _Sample(key, member.offset)
                _add(sample, tar, member, kind.lower())
            place = file.tell()
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        seen = readable(f"nothing can be read from here on: {error}")
        yield Skipped("broken_record", max(place, 0), seen[:MAX_SEEN_CHARACTERS])
    if sample is not None:
        yield from _pair(sample)


def _add(sample: _Sample, tar: tarfile.TarFile, member: tarfile.TarInfo, kind: str) -> None:
    if kind in PICTURES:
        sample.picture = member.offset_data, member.size, f"image/{PICTURES[kind]}"
    elif kind in ("json", "txt"):
        content = tar.extractfile(member)
        assert content is not None
        sample.texts[kind] = content.read(_MAX_TEXT_BYTES)


def _pair(sample: _Sample) -> Iterator[Reference | Skipped | Capture]:
    try:
        about = parse_json(sample.texts.get("json", b"{}").decode("utf-8-sig", "replace"))
    except ValueError as error:
        seen = readable(f"{sample.key}.json: {error}")
        yield Skipped("broken_record", sample.offset, seen[:MAX_SEEN_CHARACTERS])
        return
    values: Mapping[str, Any] = about if isinstance(about, dict) else {}
    url, caption = values.get("url"), values.get("caption")
    if not isinstance(url, str):
        url = ""
    if not isinstance(caption, str):
        caption = sample.texts.get("txt", b"").decode("utf-8", "replace")
    address = resolve(url, None)
    yield make_reference(
        address,
        caption,
        seen=url or sample.key,
        caption_source="table",
        page_url=None,
        offset=sample.offset,
    )
    if address.url is not None and sample.picture is not None:
        yield Capture(address.url, *sample.picture, "tar")
