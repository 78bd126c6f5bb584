"""A model at work on pictures and texts, with what it made of them kept in a folder.

B: pictures at a time, N: pictures, W: width of the image tower, D: embedding, S: side in pixels.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import xxhash
from torch import Tensor

from dedup.evaluation.evalset_index import state_of
from dedup.evaluation.evalsets import EvalSet
from pipeline.errors import InputError
from pipeline.runtime import storage
from pipeline.runtime.manifest import digest
from train.evaluation.config import Precision
from train.evaluation.features import (
    Features,
    Vectors,
    check_finite,
    read_features,
    write_features,
)
from train.evaluation.pictures import Squares, squares_ahead
from train.models.clip import Clip, normalize_pixels
from train.models.image_tower import VisionTransformer

PREPROCESSING = "centre square, bicubic, 1"
"""Part of every key; to be changed with what happens to a picture before the model sees it."""

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(kw_only=True)
class Clock:
    """Where the time of embedding pictures went; on a GPU the model's is that of waiting for it."""

    model_s: float = 0.0
    waiting_s: float = 0.0

    @property
    def share(self) -> float:
        """The model's share of the time."""
        return self.model_s / max(self.model_s + self.waiting_s, 1e-9)


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """A model at work: where, how exactly, with how many pictures at a time.

    Attributes:
        folder: keeps what was computed.
        key: tells the model's weights and how they are computed with from any others.
        readers: threads that decode ahead of the model.
    """

    model: Clip
    device: torch.device
    precision: Precision
    batch_size: int
    readers: int
    folder: str
    key: str

    def computing(self) -> AbstractContextManager[object]:
        """Return what keeps products in the chosen precision."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, _TYPES[self.precision])

    def hidden(self, squares: Squares) -> Tensor:
        """Return what the image tower makes of pictures, before the projection of a ViT, [B, W]."""
        pixels = torch.from_numpy(squares.pixels_B3SS).to(self.device, non_blocking=True)
        visual = self.model.visual
        tower = visual.features if isinstance(visual, VisionTransformer) else visual
        with self.computing():
            hidden: Tensor = tower(normalize_pixels(pixels))
        return hidden


def make_embedder(
    model: Clip,
    *,
    device: torch.device,
    folder: str,
    precision: Precision = "fp32",
    batch_size: int = 256,
    readers: int = 4,
) -> Embedder:
    """Put `model` on `device`, ready to embed; its key is worked out once, from all weights."""
    about = [*identity_of(model), precision, device.type]
    return Embedder(
        model=model.to(device).eval(),
        device=device,
        precision=precision,
        batch_size=batch_size,
        readers=readers,
        folder=folder,
        key=digest(about)[:16],
    )


def identity_of(model: Clip) -> list[object]:
    """Return what tells the embeddings of a model from those of any other: weights, shape, preparation."""
    content = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return [content.hexdigest(), asdict(model.spec), PREPROCESSING]


def features_of(
    embedder: Embedder,
    evalset: EvalSet,
    *,
    clock: Clock | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Features:
    """Return what the model makes of a set: from the embedder's folder, else computed and kept there.

    Args:
        clock: counts where the time goes.
        advance: told of the pictures read and of those refused among them, as they are.

    Raises:
        InputError: if the set cannot be read, none of its pictures can be decoded, or what the model
            makes of one is not finite.
    """
    path = storage.join(
        embedder.folder,
        f"{evalset.name}-{digest([embedder.key, state_of(evalset)])[:16]}.parquet",
    )
    if storage.size(path) is None:
        write_features(path, _embed(embedder, evalset, clock or Clock(), advance))
    features = project(embedder.model, read_features(path, evalset.name))
    check_finite(f"pictures of evaluation set {evalset.name}", features.vectors_ND)
    return features


@torch.inference_mode()
def _embed(
    embedder: Embedder,
    evalset: EvalSet,
    clock: Clock,
    advance: Callable[[int, int], None] | None,
) -> Features:
    """Return what `project` takes."""
    batches: list[Squares] = []
    blocks: list[Vectors] = []
    under_way: Tensor | None = None
    waiting_since = time.perf_counter()
    for squares in squares_ahead(
        evalset,
        embedder.model.spec.resolution,
        embedder.batch_size,
        readers=embedder.readers,
    ):
        begun = time.perf_counter()
        clock.waiting_s += begun - waiting_since
        hidden = embedder.hidden(squares) if squares.items else None
        # A GPU computes this batch while the one before is fetched.
        if under_way is not None:
            blocks.append(under_way.float().cpu().numpy())
        under_way = hidden
        batches.append(replace(squares, pixels_B3SS=squares.pixels_B3SS[:0]))
        waiting_since = time.perf_counter()
        clock.model_s += waiting_since - begun
        if advance is not None:
            advance(len(squares.items) + len(squares.refused), len(squares.refused))
    if under_way is not None:
        blocks.append(under_way.float().cpu().numpy())
        clock.model_s += time.perf_counter() - waiting_since
    drops = [refused for squares in batches for refused in squares.refused]
    if not blocks:
        reason = f", such as {drops[0]['detail']}" if drops else ""
        raise InputError(
            f"evaluation set {evalset.name}: none of its {len(drops)} pictures can be decoded{reason}"
        )
    return Features(
        evalset=evalset.name,
        items=[item for squares in batches for item in squares.items],
        splits=[split for squares in batches for split in squares.splits],
        labels=[label for squares in batches for label in squares.labels],
        captions=[captions for squares in batches for captions in squares.captions],
        vectors_ND=np.concatenate(blocks),
        drops=drops,
    )


@torch.inference_mode()
def project(model: Clip, features: Features) -> Features:
    """Return features, as they come out of the tower, in the space of pictures and texts."""
    if not isinstance(model.visual, VisionTransformer):
        return features
    hidden_NW = features.vectors_ND
    projected = torch.from_numpy(hidden_NW.copy()) @ model.visual.proj.cpu()
    return replace(features, vectors_ND=projected.numpy(), hidden_NW=hidden_NW)
