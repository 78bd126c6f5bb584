import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dedup.evaluation import decontaminate
from dedup.evaluation.decontaminate import READ, Evaluation, _equal, find_overlaps, load_evaluation
from dedup.evaluation.evalset_index import make_index
from dedup.evaluation.evalsets import EvalSet
from pipeline import schemas
from pipeline.errors import InputError
from pipeline.pictures.images import Pixels, decode, pdq, pixel_hash
from pipeline.runtime.executor import InlineExecutor

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


def evalset(
    folder: Path,
    files: dict[str, bytes],
    *,
    name: str = "scenes",
    file: str = "set.zip",
    max_distance: int = 31,
) -> EvalSet:
    path = folder / file
    with zipfile.ZipFile(path, "w") as archive:
        for item, data in files.items():
            archive.writestr(item, data)
    return EvalSet(name=name, path=str(path), max_distance=max_distance)


def corpus(*pictures: bytes) -> pa.Table:
    """Return what `download` records of pictures, as far as it is compared."""
    rows = []
    for i, data in enumerate(pictures):
        rgb = decode(data).rgb
        hashed, quality = pdq(rgb)
        rows.append(
            {
                "pair_id": f"{i:032x}",
                "image_sha256": hashlib.sha256(data).hexdigest(),
                "pixel_hash": pixel_hash(rgb),
                "pdq": hashed,
                "pdq_quality": quality,
            }
        )
    return pa.Table.from_pylist(rows, COMPARED)


def hashed(folder: Path, *evalsets: EvalSet) -> Evaluation:
    made = make_index(evalsets, str(folder / "index"), InlineExecutor())
    files = [file for evalset in evalsets for file in made[evalset.name].files]
    return load_evaluation(tuple(files), evalsets)


def overlaps(folder: Path, pairs: pa.Table, *evalsets: EvalSet) -> list[tuple[int, str, str]]:
    found = find_overlaps(pairs, hashed(folder, *evalsets), min_quality=50).to_pylist()
    return [(f["row"], f["item"], f["method"]) for f in found]


def test_each_kind_of_copy_is_met_by_the_closest_relation(tmp_path: Path) -> None:
    rgb = scene(1)
    png = encode(rgb, "PNG")
    half = np.asarray(Image.fromarray(rgb).resize((80, 64), Image.Resampling.BICUBIC))
    pairs = corpus(
        png, encode(rgb, "BMP"), encode(rgb, "JPEG", quality=50), encode(half, "PNG"),
        encode(scene(2), "PNG"), encode(rgb[:, ::-1], "JPEG", quality=50),
    )  # fmt: skip
    original = evalset(tmp_path, {"a/1.png": png, "b/2.png": encode(scene(3), "PNG")})
    assert overlaps(tmp_path, pairs, original) == [
        (0, "a/1.png", "same_bytes"),
        (1, "a/1.png", "same_pixels"),
        (2, "a/1.png", "near_duplicate"),
        (3, "a/1.png", "near_duplicate"),
        (5, "a/1.png", "mirrored"),
    ]


def test_tiny_pictures_are_met_by_likeness_too(tmp_path: Path) -> None:
    tiny = scene(1, width=32, height=32)
    alike = tiny.copy()
    alike[0, 0] ^= 1
    pairs = corpus(
        encode(tiny, "BMP"), encode(alike, "BMP"), encode(alike[:, ::-1], "BMP"),
        encode(scene(2, width=32, height=32), "PNG"),
    )  # fmt: skip
    assert overlaps(tmp_path, pairs, evalset(tmp_path, {"a/1.png": encode(tiny, "PNG")})) == [
        (0, "a/1.png", "same_pixels"),
        (1, "a/1.png", "near_duplicate"),
        (2, "a/1.png", "mirrored"),
    ]


def test_a_picture_that_is_its_own_mirror_image_is_met_once(tmp_path: Path) -> None:
    original = hashed(tmp_path, evalset(tmp_path, {"a/1.png": encode(scene(1), "PNG")}))
    place = original.pictures.schema.get_field_index("pdq_mirrored")
    own = original.pictures.set_column(place, "pdq_mirrored", original.pictures.column("pdq"))
    copy = corpus(encode(scene(1), "JPEG", quality=70))
    found = find_overlaps(copy, replace(original, pictures=own), min_quality=50)
    assert found.column("method").to_pylist() == ["near_duplicate"]


def test_every_item_that_a_picture_meets_is_named(tmp_path: Path) -> None:
    png = encode(scene(1), "PNG")
    files = {"b/2.png": png, "a/1.bmp": encode(scene(1), "BMP"), "a/9.png": encode(scene(9), "PNG")}
    again = {"c/1.png": png}
    first, second = (
        evalset(tmp_path, files),
        evalset(tmp_path, again, name="other", file="other.zip"),
    )
    pairs = corpus(encode(scene(5), "PNG"), png, png)
    found = find_overlaps(pairs, hashed(tmp_path, second, first), min_quality=50)
    expected = [
        ("other", "c/1.png", "same_bytes"),
        ("scenes", "a/1.bmp", "same_pixels"),
        ("scenes", "b/2.png", "same_bytes"),
    ]
    names = [(f["row"], f["evalset"], f["item"], f["method"]) for f in found.to_pylist()]
    assert names == [(row, *rest) for row in (1, 2) for rest in expected]


def test_the_split_of_the_picture_is_named(tmp_path: Path) -> None:
    png = encode(scene(1), "PNG")
    both = evalset(tmp_path, {"train/a/1.png": png, "test/a/1.png": png})
    found = find_overlaps(corpus(png), hashed(tmp_path, both), min_quality=50)
    assert found.column("split").to_pylist() == ["test", "train"]


def test_each_set_has_its_own_distance(tmp_path: Path) -> None:
    original = evalset(tmp_path, {"a/1.png": encode(scene(1), "PNG")})
    copy = corpus(encode(scene(1), "JPEG", quality=30))
    (near,) = find_overlaps(copy, hashed(tmp_path, original), min_quality=50).to_pylist()
    assert near["distance"] > 0
    own = [
        original.model_copy(update={"name": name, "max_distance": int(radius)})
        for name, radius in (("at", near["distance"]), ("below", near["distance"] - 1))
    ]
    found = find_overlaps(copy, hashed(tmp_path, *own), min_quality=50)
    assert found.column("evalset").to_pylist() == ["at"]


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
    assert len(find_overlaps(pairs, hashed(tmp_path, original), min_quality=floor)) == met


def test_blank_evaluation_pictures_are_met_by_their_pixels_alone(tmp_path: Path) -> None:
    flat = np.full((128, 128, 3), 240, np.uint8)
    blank = evalset(tmp_path, {"a/1.png": encode(flat, "PNG")})
    other = flat.copy()
    other[0, 0] = 0
    pairs = corpus(encode(flat, "BMP"), encode(other, "PNG"))
    pairs = pairs.set_column(4, COMPARED.field("pdq_quality"), pa.array([100, 100], pa.int32()))
    assert overlaps(tmp_path, pairs, blank) == [(0, "a/1.png", "same_pixels")]


def test_a_broken_evaluation_picture_is_met_by_its_bytes(tmp_path: Path) -> None:
    broken = encode(scene(1), "PNG")[:200]
    original = evalset(tmp_path, {"a/1.png": broken, "a/2.png": encode(scene(2), "PNG")})
    pairs = corpus(encode(scene(3), "PNG"))
    digest = hashlib.sha256(broken).hexdigest()
    pairs = pairs.set_column(1, COMPARED.field("image_sha256"), [[digest]])
    assert overlaps(tmp_path, pairs, original) == [(0, "a/1.png", "same_bytes")]


def test_a_set_without_a_readable_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no readable picture: a/1\.png is refused, not_an_image"):
        hashed(tmp_path, evalset(tmp_path, {"a/1.png": b"<html>"}))


def test_nothing_overlaps_with_no_pictures() -> None:
    none = load_evaluation((), ())
    assert find_overlaps(corpus(encode(scene(1), "PNG")), none, min_quality=50).num_rows == 0
    assert find_overlaps(COMPARED.empty_table(), none, min_quality=50).num_rows == 0


def test_no_corpus_picture_meets_no_evaluation_picture(tmp_path: Path) -> None:
    original = evalset(tmp_path, {"a/1.png": encode(scene(1), "PNG")})
    assert overlaps(tmp_path, COMPARED.empty_table(), original) == []


def test_rows_in_chunks_give_what_one_table_gives(tmp_path: Path) -> None:
    pictures = [encode(scene(seed), "JPEG", quality=60) for seed in (1, 2, 1, 3, 2)]
    original = evalset(
        tmp_path, {f"a/{seed}.png": encode(scene(seed), "PNG") for seed in (1, 2, 3, 4)}
    )
    pairs = corpus(*pictures)
    chunked = pa.concat_tables([pairs.slice(i, 1) for i in range(5)])
    whole = overlaps(tmp_path, pairs, original)
    assert [item for _, item, _ in whole] == ["a/1.png", "a/2.png", "a/1.png", "a/3.png", "a/2.png"]
    assert overlaps(tmp_path, chunked, original) == whole


def with_embeddings(
    folder: Path, vectors: dict[str, list[list[float] | None]], least: dict[str, float | None]
) -> Evaluation:
    """Return sets whose pictures have embeddings and nothing else to be met by."""
    paths, sets = [], []
    for name, some in vectors.items():
        rows = [
            {"evalset": name, "item": str(i), "split": "", "captions": [], "embedding": vector}
            for i, vector in enumerate(some)
        ]
        for number, row in enumerate(rows):
            if row["embedding"] is not None:
                row["embedding"] = np.array(row["embedding"], np.float16)
            paths.append(str(folder / f"{name}-{number}.parquet"))
            table = pa.Table.from_pylist([row], schemas.EVALUATION_PICTURES)
            pq.write_table(table, paths[-1])
        sets.append(EvalSet(name=name, path="", min_similarity=least[name]))
    return load_evaluation(tuple(paths), sets)


@pytest.mark.parametrize("at_once", [1, 2, 200_000])
def test_embeddings_are_compared_where_a_set_asks_for_it(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss", reason="vector search is an extra")
    monkeypatch.setattr(decontaminate, "EMBEDDED_AT_ONCE", at_once)
    vectors: dict[str, list[list[float] | None]] = {
        "strict": [[1, 0], None, [0, 1]], "loose": [[1, 0]], "silent": [[1, 0]],
    }  # fmt: skip
    evaluation = with_embeddings(tmp_path, vectors, {"strict": 0.9, "loose": 0.5, "silent": None})
    blocks = [np.array(rows, np.float16) for rows in ([[1, 0], [0.75, 0.5]], [[0, 1]])]
    pairs = corpus(*(encode(scene(seed), "PNG") for seed in range(3)))
    found = find_overlaps(pairs, evaluation, min_quality=50, embeddings=lambda: iter(blocks))
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        (0, "loose", "", "0", "embedding", 0),
        (0, "strict", "", "0", "embedding", 0),
        (1, "loose", "", "0", "embedding", 0.25),
        (2, "strict", "", "2", "embedding", 0),
    ]
    assert find_overlaps(pairs, evaluation, min_quality=50).num_rows == 0


@given(
    st.lists(st.sampled_from(["", "a", "b", "c"]), max_size=8),
    st.lists(st.sampled_from(["", "a", "b", "d"]), max_size=8),
)
def test_equal_values_meet_each_with_each(ours: list[str], theirs: list[str]) -> None:
    columns = [
        pa.chunked_array([[value or None for value in some]], pa.string())
        for some in (ours, theirs)
    ]
    met = _equal(*columns)
    expected = [(i, j) for i, a in enumerate(ours) for j, b in enumerate(theirs) if a == b and a]
    assert list(zip(met.row.tolist(), met.other.tolist(), strict=True)) == expected


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
        (int.from_bytes(a[0], "big") ^ int.from_bytes(pdq(decode(c).rgb)[0], "big")).bit_count()
        for a, c in zip(hashes, copies, strict=True)
    ]
    assert sum(d <= 31 for d in distances) >= 39
