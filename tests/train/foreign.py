"""Tars of others, made of literals."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any


def tar_bytes(members: Sequence[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sample(key: str, caption: str | None = None, **about: Any) -> list[tuple[str, bytes]]:
    """Return the members of a sample, whose picture's bytes are its key."""
    members = [(f"{key}.jpg", f"picture {key}".encode())]
    if caption is not None:
        members.append((f"{key}.txt", caption.encode()))
    if about:
        members.append((f"{key}.json", json.dumps(about).encode()))
    return members


def tar_of_samples(prefix: str, count: int) -> bytes:
    members: list[tuple[str, bytes]] = []
    for i in range(count):
        about: Mapping[str, Any] = {"width": 100 + i}
        members += sample(f"{prefix}{i:03d}", f"caption {prefix}{i:03d}", **about)
    return tar_bytes(members)
