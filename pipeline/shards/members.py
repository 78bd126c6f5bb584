"""Check the members of a tar, as they come, against the index of the shard."""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.pictures.headers import read_header
from pipeline.pictures.tar import Member
from pipeline.shards.metadata import differences, plain_rows

_KINDS = ("image", "caption", "metadata")
_AT_ONCE = 1024
_NAMED = 3
_ABOUT_THE_TAR = [n for n in schemas.SHARD_INDEX.names if n not in schemas.SAMPLE.names]


class MemberCheck:
    """Takes the members of one tar in their order, and says what is not as the index has it."""

    def __init__(
        self, index: pa.Table, shard: str, *, decode: bool, say: Callable[[str], None]
    ) -> None:
        """Check what the index says of the shard, and expect the first member.

        Args:
            index: SHARD_INDEX, or what another version of it had.
            shard: name of the tar.
            decode: decode every picture, too.
            say: takes one line per fault.
        """
        self._index = index
        self._shard = shard
        self._decode = decode
        self._say_line = say
        keys = index.column("key").to_pylist()
        self._rows = {key: row for row, key in enumerate(keys)}
        self._seen = bytearray(len(_KINDS) * len(keys))
        self._last = -1
        self._elsewhere = 0
        # Twice, in case that members are not in order.
        self._chunk = lru_cache(maxsize=2)(self._read_chunk)
        self._check_keys(keys)

    def _say(self, text: str) -> None:
        self._say_line(f"{self._shard}: {text}")

    def _check_keys(self, keys: list[str]) -> None:
        file = self._shard.rpartition("/")[2]
        stem = file.removesuffix(".tar")
        if any(before >= after for before, after in pairwise(keys)):
            self._say("the keys of the index do not ascend")
        if strange := [key for key in keys if not key.startswith(stem)]:
            self._say(f"the key {strange[0]} of the index belongs to another shard")
        for name in pc.unique(self._index.column("shard")).to_pylist():
            if name.rpartition("/")[2] != file:
                self._say(f"the index has samples of {name}")

    def _read_chunk(self, number: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        rows = self._index.slice(number * _AT_ONCE, _AT_ONCE)
        places = rows.select(_ABOUT_THE_TAR).to_pylist()
        known = [name for name in rows.column_names if name not in _ABOUT_THE_TAR]
        return list(zip(places, plain_rows(rows.select(known)), strict=True))

    def take(self, member: Member) -> None:
        """Check the next member."""
        key, _, extension = member.name.partition(".")
        row = self._rows.get(key)
        kind = {"txt": 1, "json": 2}.get(extension, 0)
        place, known = ({}, {}) if row is None else self._chunk(row // _AT_ONCE)[row % _AT_ONCE]
        if row is None or (kind == 0 and member.name != place["image_member"]):
            self._say(f"{member.name} is not in the index")
            return
        position = len(_KINDS) * row + kind
        if self._seen[position]:
            self._say(f"{member.name} is there more than once")
            return
        self._seen[position] = 1
        if position < self._last:
            self._say(f"{member.name} stands behind members that should follow it")
        self._last = max(self._last, position)
        self._check_place(member, place, _KINDS[kind])
        self._check_content(member, known, _KINDS[kind])

    def _check_place(self, member: Member, place: dict[str, Any], kind: str) -> None:
        found = (member.offset, len(member.data))
        expected = (place[f"{kind}_offset"], place[f"{kind}_length"])
        if found == expected:
            return
        self._elsewhere += 1
        if self._elsewhere == 1:
            self._say(
                f"{member.name} lies at byte {found[0]:,} with {found[1]:,} bytes, "
                f"the index says at {expected[0]:,} with {expected[1]:,}"
            )

    def _check_content(self, member: Member, known: dict[str, Any], kind: str) -> None:
        if kind == "image":
            self._check_image(member, known)
        elif kind == "caption":
            if member.data != known["caption"].encode():
                self._say(f"{member.name} is not the caption that the index has")
        else:
            try:
                names = differences(member.data, known)
            except ValueError as error:
                self._say(f"{member.name} is no JSON object: {error}")
            else:
                if names:
                    self._say(f"{member.name} differs from the index in {', '.join(names)}")

    def _check_image(self, member: Member, known: dict[str, Any]) -> None:
        seen = read_header(member.data)
        if seen is None or not member.name.endswith(f".{seen.extension}"):
            self._say(f"{member.name} does not begin as such a picture")
        elif (seen.width, seen.height) != (known["width"], known["height"]):
            self._say(
                f"{member.name} has {seen.width}×{seen.height} pixels, "
                f"the index says {known['width']}×{known['height']}"
            )
        elif self._decode:
            # Pillow and simplejpeg are not needed, nor perhaps installed, where nothing is decoded.
            from pipeline.pictures.images import ImageRefused, decode

            try:
                decode(member.data)
            except ImageRefused as refusal:
                self._say(f"{member.name} cannot be decoded: {refusal}")

    def end(self) -> None:
        """Say what is missing, after the last member."""
        if self._elsewhere > 1:
            self._say(f"{self._elsewhere - 1:,} more members lie elsewhere than the index says")
        missing = self._missing()
        for name in missing[:_NAMED]:
            self._say(f"{name} is missing")
        if missing[_NAMED:]:
            self._say(f"{len(missing) - _NAMED:,} more members are missing")

    def _missing(self) -> list[str]:
        names = []
        for key, row in self._rows.items():
            seen = self._seen[len(_KINDS) * row :][: len(_KINDS)]
            if not all(seen):
                image = str(self._index.column("image_member")[row].as_py())
                members = (image, f"{key}.txt", f"{key}.json")
                names += [
                    name for name, is_there in zip(members, seen, strict=True) if not is_there
                ]
        return names
