"""What each corruption costs and does, on real photographs and tiny pictures, and a sheet of each to look at.

    python -m benchmarks.corruptions --data ../shared/data --folder /tmp/corruptions

Prints milliseconds of processor time a picture and mean distance from the clean picture in levels, by severity.
"""

import argparse
import tarfile
import time
from pathlib import Path

import numpy as np

from pipeline.pictures.images import Pixels, decode
from train.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from train.evaluation.robustness import draw_corruptions
from train.samples.augment import CENTRE, square_crop


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for the sheets")
    parser.add_argument("--photographs", type=int, default=30)
    parser.add_argument("--tiny", type=int, default=100)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    images = arguments.data / "images"
    for kind, pictures in {
        "photographs": read(images / "imagenet_sample_600.tar", "", arguments.photographs, 224),
        "tiny": read(images / "cifar10_jpg.tar.gz", "test/", arguments.tiny, 32),
    }.items():
        print(
            f"\n{len(pictures)} {kind}\n\n| corruption | ms | distance from clean |\n|---|---:|---|"
        )
        total = sum(report(name, pictures) for name in CORRUPTIONS)
        print(f"\nall at five severities: {5 * total:.0f} ms a picture")
        item = list(pictures)[len(pictures) // 2]
        sheet = draw_corruptions(pictures[item], item)
        (arguments.folder / f"{kind}.png").write_bytes(sheet)


def read(archive: Path, prefix: str, most: int, side: int) -> dict[str, Pixels]:
    """Return the first pictures of an archive below a folder, as squares."""
    found: dict[str, Pixels] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if len(found) == most:
                break
            if member.name.startswith(prefix) and (file := tar.extractfile(member)):
                square = square_crop(decode(file.read()).rgb, side, CENTRE)
                found[member.name] = np.ascontiguousarray(square.transpose(1, 2, 0))
    return found


def report(name: str, pictures: dict[str, Pixels]) -> float:
    """Print a row and return the milliseconds a picture and severity."""
    first = next(iter(pictures))
    # Compiles what is to be compiled.
    corrupt(name, 1, pictures[first], first)
    distances, begun = [], time.process_time()
    for severity in SEVERITIES:
        copies = [corrupt(name, severity, rgb, item) for item, rgb in pictures.items()]
        both = zip(copies, pictures.values(), strict=True)
        distances.append(np.mean([np.abs(c.astype(float) - rgb).mean() for c, rgb in both]))
    spent = 1000 * (time.process_time() - begun) / len(pictures) / len(SEVERITIES)
    print(
        f"| {name.replace('_', ' ')} | {spent:.2f} | {', '.join(f'{d:.1f}' for d in distances)} |"
    )
    return spent


if __name__ == "__main__":
    main()
