"""Shards made of literals: a plain tar with its index, as the stage "shard" writes them."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import schemas

Pair = tuple[bytes, str]

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 230), "grey": (128,) * 3}


# Columns that training does not look at.
UNREAD = {
    field.name: [] if pa.types.is_list(field.type) else "" if field.type == pa.string() else 0
    for field in schemas.SHARD_INDEX
    if not field.nullable
}


def png(rgb: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


def coloured_pairs(count: int) -> list[Pair]:
    """Return noisy pictures of one colour each, with captions that name it."""
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(count):
        name = list(COLOURS)[i % len(COLOURS)]
        noise = rng.integers(-25, 25, (12, 12 + i % 3, 3))
        rgb = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
        pairs.append((png(rgb), f"a picture painted {name}, number {i}"))
    return pairs


def write_shard(path: Path, name: str, pairs: Sequence[Pair], first: int) -> pa.Table:
    """Write a tar and return its SHARD_INDEX."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i, (image, caption) in enumerate(pairs, start=first):
            key = f"{i:09d}"
            row: dict[str, Any] = {**UNREAD, "pair_id": f"{i:032x}", "shard": name, "key": key}
            row |= {"caption": caption, "image_member": f"{key}.png"}
            members = {"image": ("png", image), "caption": ("txt", caption.encode())}
            members["metadata"] = ("json", b"{}")
            for member, (suffix, data) in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                row |= {f"{member}_offset": tar.offset + 512, f"{member}_length": len(data)}
                tar.addfile(info, io.BytesIO(data))
            rows.append(row)
    return pa.Table.from_pylist(rows, schemas.SHARD_INDEX)


def colour_set(folder: Path, broken: int = 0) -> str:
    """Write pictures of `coloured_pairs` as an evaluation set, and return the file that names it."""
    for i, (image, caption) in enumerate(coloured_pairs(15)):
        path = folder / "colours" / caption.split()[3].rstrip(",") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    for i in range(broken):
        (folder / "colours" / "red" / f"broken{i}.png").write_bytes(b"no picture")
    sets = folder / "sets.toml"
    sets.write_text('[colours]\npath = "colours"\nprompts = ["a picture painted {label}"]\n')
    return str(sets)
