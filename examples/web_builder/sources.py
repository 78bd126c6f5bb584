"""Fetch the packages the pictures come from, and read them. Nothing is run from them."""

import csv
import gzip
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from web_builder.captions import PRODUCTS

HERE = Path(__file__).parent
LONGEST_SHAPE = 2
"""long side over short side"""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One archive: the command that fetches it, the file it leaves, and that file's digest."""

    command: tuple[str, ...]
    file: str
    sha256: str


PACKAGES = (
    Package(
        command=("apt-get", "download", "openclipart-png=1:0.18+dfsg-19"),
        file="openclipart-png_1%3a0.18+dfsg-19_all.deb",
        sha256="f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    ),
    Package(
        command=("apt-get", "download", "dataset-fashion-mnist=0.0~git20200523.55506a9-1"),
        file="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    ),
    Package(
        command=("npm", "pack", "--silent", "emoji-datasource-google@15.1.2"),
        file="emoji-datasource-google-15.1.2.tgz",
        sha256="d44462c604b8b8ddeea1bded87031fe73beadd92b9569d977dbd6224e45dc850",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Clipart:
    """One row of `clipart.tsv`: where it is shown, its file, its title or what we call it."""

    gallery: str
    picture: str
    caption: str


def fetch(folder: Path) -> None:
    """Bring every package into `folder` and unpack it there, unless that is done.

    Raises:
        SystemExit: if a package is not the one the site was made from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        archive = folder / package.file
        if not archive.exists():
            subprocess.run(package.command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != package.sha256:
            raise SystemExit(f"{archive} has sha256 {digest}, expected {package.sha256}")
        _unpack(archive, folder)


def _unpack(archive: Path, folder: Path) -> None:
    done = archive.with_suffix(".unpacked")
    if done.exists():
        return
    if archive.suffix == ".deb":
        subprocess.run(["dpkg", "-x", archive.name, "."], cwd=folder, check=True)
    else:
        with tarfile.open(archive) as content:
            content.extractall(folder, filter="data")
    done.touch()


def fashion(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the 28 x 28 pictures of Fashion-MNIST's training set, class by class, in its order."""
    data = folder / "usr/share/datasets/fashion-mnist"
    pixels = gzip.decompress((data / "train-images-idx3-ubyte.gz").read_bytes())
    classes = gzip.decompress((data / "train-labels-idx1-ubyte.gz").read_bytes())
    pictures = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer(classes, np.uint8, offset=8)
    return {p.folder: pictures[labels == number] for number, p in enumerate(PRODUCTS)}


def digits() -> list[tuple[int, Image.Image]]:
    """Return scikit-learn's 1,797 digits, each with its label, enlarged from 8 x 8 to 32 x 32."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = np.minimum(bunch.images * 16, 255).astype(np.uint8)
    return [
        (int(label), Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC))
        for label, picture in zip(bunch.target, small, strict=True)
    ]


def cliparts() -> list[Clipart]:
    """Return the rows of `clipart.tsv`."""
    with (HERE / "clipart.tsv").open(encoding="utf-8", newline="") as file:
        return [Clipart(**row) for row in csv.DictReader(file, delimiter="\t")]


def clipart_image(folder: Path, clipart: Clipart) -> Image.Image:
    """Return the picture of `clipart`, without the empty sheet around it unless a strip were left."""
    file = folder / "usr/share/openclipart/png" / f"{clipart.picture}.png"
    picture = Image.open(file).convert("RGBA")
    box = picture.getchannel("A").getbbox()
    if box is None:
        return picture
    width, height = box[2] - box[0], box[3] - box[1]
    is_strip = max(width, height) > LONGEST_SHAPE * min(width, height)
    return picture if is_strip else picture.crop(box)


def emoji(folder: Path, count: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield (category, name, PNG) of `count` emoji: things and creatures, spread over the categories."""
    listed = json.loads((folder / "package/emoji.json").read_text(encoding="utf-8"))
    plain = [e for e in listed if e["has_img_google"] and "-" not in e["unified"]]
    wanted = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects", "Activities")
    for category in wanted:
        inside = sorted((e for e in plain if e["category"] == category), key=_place)
        each = count // len(wanted)
        for number in range(each):
            entry = inside[number * len(inside) // each]
            file = folder / "package/img/google/64" / entry["image"]
            yield category, entry["name"].lower(), file.read_bytes()


def _place(entry: dict[str, int]) -> int:
    return entry["sort_order"]


def photograph(name: str) -> Image.Image:
    """Return a photograph that scikit-image's package carries, as RGB."""
    from skimage.data import data_dir

    return Image.open(Path(data_dir) / name).convert("RGB")
