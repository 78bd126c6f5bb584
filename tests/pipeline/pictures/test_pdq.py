import tarfile

import numpy as np
import pdqhash
import pytest
from PIL import Image

from pipeline.pictures.images import decode, encode_jpeg, pdq, resize
from pipeline.pictures.pdq import hash_pixels
from tests.pipeline.pictures.test_images import encoded, photograph


def differing_bits(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def published(rgb: np.ndarray) -> tuple[bytes, int]:
    bits, quality = pdqhash.compute(np.require(rgb, requirements=["C", "W"]))
    return np.packbits(bits.astype(np.uint8)).tobytes(), quality


@pytest.fixture(scope="module")
def photographs(shared_data):
    with tarfile.open(shared_data / "images/imagenet_sample_600.tar") as tar:
        return [decode(tar.extractfile(m).read()).rgb for m in tar if m.isfile()][:60]


def test_real_photographs_have_the_bits_of_the_published_implementation(photographs):
    for rgb in photographs:
        assert hash_pixels(rgb) == published(rgb)


@pytest.mark.parametrize(
    ("width", "height"), [(64, 64), (65, 700), (128, 127), (129, 300), (1001, 64), (1300, 900)]
)
def test_so_have_pictures_of_any_size(width, height):
    rgb = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    rgb = rgb // 4 + photograph(width, height) // 2
    assert hash_pixels(rgb) == published(rgb)


def test_pdq_hardly_notices_resizing_and_recompression(photographs):
    hashes = []
    for rgb in photographs[:12]:
        height, width = rgb.shape[:2]
        original = pdq(rgb)[0]
        small = decode(encode_jpeg(resize(rgb, width=width // 2, height=height // 2), 75))
        large = resize(rgb, width=width * 3, height=height * 3)
        assert differing_bits(original, pdq(small.rgb)[0]) <= 48
        assert differing_bits(original, pdq(large)[0]) <= 32
        hashes.append(original)
    others = [differing_bits(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(others) > 70


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (32, 32), (63, 64), (500, 63)])
def test_tiny_pictures_have_a_hash_too(size):
    bits, quality = pdq(photograph(*size))
    assert len(bits) == 32
    assert 0 <= quality <= 100


def test_a_tiny_picture_is_hashed_as_its_enlargement(photographs):
    for rgb in photographs[:10]:
        tiny = np.asarray(Image.fromarray(rgb).resize((32, 32), Image.Resampling.BOX))
        enlarged = np.asarray(Image.fromarray(tiny).resize((128, 128), Image.Resampling.BICUBIC))
        assert pdq(tiny) == hash_pixels(enlarged)
        again = decode(encoded(tiny, "JPEG", quality=90)).rgb
        assert differing_bits(pdq(tiny)[0], pdq(again)[0]) <= 31


def test_pdq_does_not_shrink_a_banner_out_of_sight():
    banner = photograph(6400, 70)
    assert pdq(banner)[0] != pdq(banner[:, ::-1])[0]


def test_a_read_only_picture_and_a_view_of_one_can_be_hashed():
    rgb = photograph(100, 100)
    expected = pdq(np.ascontiguousarray(rgb[:, ::-1]))
    rgb.setflags(write=False)
    assert pdq(rgb[:, ::-1]) == expected
