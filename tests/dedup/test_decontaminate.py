import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dedup.decontaminate import EVALUATION, READ, find_overlaps, hash_evalset
from dedup.evalsets import EvalSet
from pipeline import schemas
from pipeline.errors import InputError
from pipeline.pictures.images import Pixels, decode, pdq, pixel_hash

COMPARED = pa.schema([schemas.DOWNLOADED.field(name) for name in READ])


def scene(seed: int, *, width: int = 160, height: int = 120) -> Pixels:
    """Return a picture with detail at every scale, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for side in (3, 6, 12, 24, 48):
        noise = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(layer) / side
    low, high = total.min(), total.max()
    return ((total - low) / (high - low) * 255).astype(np.uint8)


def encode(rgb: Pixels, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind, **options)
    return buffer.getvalue()


def evalset(folder: Path, files: dict[str, bytes], *, max_distance: int = 31) -> EvalSet:
    path = folder / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return EvalSet(name="scenes", path=str(path), max_distance=max_distance)


def corpus(*pictures: bytes) -> pa.Table:
    """Return what `download` records of pictures, as far as it is compared."""
    rows = []
    for i, data in enumerate(pictures):
        rgb = decode(data).rgb
        hashed = pdq(rgb)
        rows.append(
            {
                "pair_id": f"{i:032x}",
                "image_sha256": hashlib.sha256(data).hexdigest(),
                "pixel_hash": pixel_hash(rgb),
                "pdq": hashed[0] if hashed else None,
                "pdq_quality": hashed[1] if hashed else None,
            }
        )
    return pa.Table.from_pylist(rows, COMPARED)


def overlaps(pairs: pa.Table, evalset: EvalSet) -> list[tuple[int, str, str]]:
    evaluation = hash_evalset(evalset, min_quality=50)
    found = find_overlaps(pairs, evaluation, min_quality=50).to_pylist()
    return [(f["row"], f["item"], f["method"]) for f in found]


def test_each_kind_of_copy_is_met_by_the_closest_relation(tmp_path: Path) -> None:
    rgb = scene(1)
    png = encode(rgb, "PNG")
    half = np.asarray(Image.fromarray(rgb).resize((80, 64), Image.Resampling.BICUBIC))
    pairs = corpus(
        png, encode(rgb, "BMP"), encode(rgb, "JPEG", quality=50), encode(half, "PNG"),
        encode(scene(2), "PNG"),
    )  # fmt: skip
    found = overlaps(pairs, evalset(tmp_path, {"a/1.png": png, "b/2.png": encode(scene(3), "PNG")}))
    assert found == [
        (0, "a/1.png", "same_bytes"),
        (1, "a/1.png", "same_pixels"),
        (2, "a/1.png", "near_duplicate"),
        (3, "a/1.png", "near_duplicate"),
    ]


def test_every_item_that_a_picture_meets_is_named(tmp_path: Path) -> None:
    png = encode(scene(1), "PNG")
    files = {"b/2.png": png, "a/1.bmp": encode(scene(1), "BMP"), "a/9.png": encode(scene(9), "PNG")}
    assert overlaps(corpus(png), evalset(tmp_path, files)) == [
        (0, "a/1.bmp", "same_pixels"),
        (0, "b/2.png", "same_bytes"),
    ]


def test_each_set_has_its_own_distance(tmp_path: Path) -> None:
    original = evalset(tmp_path, {"a/1.png": encode(scene(1), "PNG")})
    copy = corpus(encode(scene(1), "JPEG", quality=30))
    evaluation = hash_evalset(original, min_quality=50)
    (near,) = find_overlaps(copy, evaluation, min_quality=50).to_pylist()
    assert near["distance"] > 0
    tables = []
    for name, radius in (("at", near["distance"]), ("below", near["distance"] - 1)):
        own = original.model_copy(update={"name": name, "max_distance": radius})
        tables.append(hash_evalset(own, min_quality=50))
    found = find_overlaps(copy, pa.concat_tables(tables), min_quality=50)
    assert found.column("evalset").to_pylist() == ["at"]


def test_tiny_pictures_meet_by_pixels_but_not_by_likeness(tmp_path: Path) -> None:
    tiny = scene(1, width=28, height=28)
    alike = tiny.copy()
    alike[0, 0] ^= 1
    pairs = corpus(encode(tiny, "BMP"), encode(alike, "BMP"))
    assert overlaps(pairs, evalset(tmp_path, {"a/1.png": encode(tiny, "PNG")})) == [
        (0, "a/1.png", "same_pixels")
    ]


@pytest.mark.parametrize(
    ("corpus_quality", "floor", "met"), [(60, 60, 1), (59, 60, 0), (None, 0, 0)]
)
def test_pictures_below_the_quality_floor_are_not_met_by_likeness(
    tmp_path: Path, corpus_quality: int | None, floor: int, met: int
) -> None:
    original = evalset(tmp_path, {"a/1.png": encode(scene(1), "PNG")})
    quality = pa.array([corpus_quality], pa.int32())
    pairs = corpus(encode(scene(1), "JPEG", quality=70))
    pairs = pairs.set_column(4, COMPARED.field("pdq_quality"), quality)
    evaluation = hash_evalset(original, min_quality=floor)
    assert len(find_overlaps(pairs, evaluation, min_quality=floor)) == met


def test_evaluation_pictures_below_the_quality_floor_have_no_hash(tmp_path: Path) -> None:
    flat = np.full((128, 128, 3), 240, np.uint8)
    blank = evalset(tmp_path, {"a/1.png": encode(flat, "PNG")})
    assert hash_evalset(blank, min_quality=1).column("pdq").null_count == 1
    assert hash_evalset(blank, min_quality=0).column("pdq").null_count == 0


def test_a_broken_evaluation_picture_is_met_by_its_bytes(tmp_path: Path) -> None:
    broken = encode(scene(1), "PNG")[:200]
    hashed = hash_evalset(
        evalset(tmp_path, {"a/1.png": broken, "a/2.png": encode(scene(2), "PNG")}), min_quality=50
    )
    assert hashed.column("pixel_hash").null_count == 1
    pairs = corpus(encode(scene(3), "PNG"))
    digest = hashlib.sha256(broken).hexdigest()
    pairs = pairs.set_column(1, COMPARED.field("image_sha256"), [[digest]])
    found = find_overlaps(pairs, hashed, min_quality=50)
    assert found.column("item").to_pylist() == ["a/1.png"]


def test_a_set_without_a_readable_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no readable picture: a/1\.png is refused, not_an_image"):
        hash_evalset(evalset(tmp_path, {"a/1.png": b"<html>"}), min_quality=50)


def test_nothing_overlaps_with_no_pictures() -> None:
    none = EVALUATION.empty_table()
    assert find_overlaps(corpus(encode(scene(1), "PNG")), none, min_quality=50).num_rows == 0
    assert find_overlaps(COMPARED.empty_table(), none, min_quality=50).num_rows == 0


def test_photographs_are_found_again_after_resizing_and_recompression(shared_data: Path) -> None:
    with tarfile.open(shared_data / "images" / "imagenet_sample_600.tar") as tar:
        members = [m for m in tar.getmembers() if m.isfile()][:40]
        photographs = [tar.extractfile(m).read() for m in members]  # type: ignore[union-attr]
    hashes = [pdq(decode(data).rgb) for data in photographs]
    copies = []
    for data in photographs:
        image = Image.fromarray(decode(data).rgb)
        half = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
        copies.append(encode(np.asarray(half), "JPEG", quality=50))
    distances = [
        (int.from_bytes(a[0], "big") ^ int.from_bytes(pdq(decode(c).rgb)[0], "big")).bit_count()  # type: ignore[index]
        for a, c in zip(hashes, copies, strict=True)
        if a is not None
    ]
    assert sum(d <= 31 for d in distances) >= 39
