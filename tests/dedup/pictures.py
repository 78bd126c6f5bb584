"""Pictures and small models to embed them with."""

import io
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor, nn

Pixels = npt.NDArray[np.uint8]


class Patches(nn.Module):
    """Embeds a picture by the means of a four by four grid; any side will do."""

    def __init__(self, scale: float = 1) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, pictures: Tensor) -> Tensor:
        grid = nn.functional.adaptive_avg_pool2d(pictures, 4)
        return grid.flatten(1) * self.scale


def scenes(count: int, seed: int = 0, most: int = 90) -> list[Pixels]:
    """Return smooth pictures of many sizes, some very small or narrow."""
    rng = np.random.default_rng(seed)
    found = []
    for height, width in rng.integers(1, most, (count, 2)).tolist():
        few = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        found.append(np.array(few.resize((width, height), Image.Resampling.BICUBIC)))
    return found


def png(rgb: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


def photographs(shared_data: Path, count: int) -> list[Image.Image]:
    found = []
    with tarfile.open(shared_data / "images" / "imagenet_sample_600.tar") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith((".jpg", ".JPEG")) else None
            if file:
                found.append(Image.open(io.BytesIO(file.read())).convert("RGB"))
            if len(found) == count:
                break
    return found
