"""Write tests/train/fixtures/open_clip.json: what open_clip's models give for drawn weights.

Made with open_clip_torch 3.3.0 and torch 2.13 on a CPU, outside the project's environment:

    pip install --no-deps --target DIR open_clip_torch==3.3.0 timm ftfy wcwidth regex
    PYTHONPATH=DIR:. python tests/reference/open_clip_outputs.py

open_clip asks for torchvision at import; its models do not use it, so a stand-in serves.
"""

import hashlib
import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.reference.drawn_weights import draw, fill, pictures, texts

FIXTURE = Path(__file__).parent.parent / "train/fixtures/open_clip.json"
MODELS = {
    "RN50": "RN50",
    "RN101": "RN101",
    "RN50x4": "RN50x4",
    "RN50x16": "RN50x16",
    "RN50x64": "RN50x64",
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14-336": "ViT-L-14-336",
}
WITH_GELU = ("RN50", "ViT-B/32")
ONE_PICTURE = ("RN50x16", "RN50x64", "ViT-L/14", "ViT-L/14-336")


class Anything(type):
    """A kind of class that has whatever is asked of it, as a class."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})


class StandIn(types.ModuleType):
    """A module that has whatever is asked of it."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})


def import_open_clip() -> Any:
    for name in ("", ".ops", ".ops.misc", ".transforms", ".transforms.functional"):
        module = StandIn(f"torchvision{name}")
        sys.modules[module.__name__] = module
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    return importlib.import_module("open_clip")


def summary(embedded: Tensor) -> list[list[float]]:
    """Return of each unit-length embedding the first eight values, and its product with a drawn one."""
    probe = torch.from_numpy(draw("probe", embedded.shape[1]))
    rows = torch.cat([embedded[:, :8], (embedded @ probe)[:, None]], dim=1)
    return [[round(value, 8) for value in row] for row in rows.tolist()]


def names_digest(model: torch.nn.Module) -> str:
    """Return a digest of all names in the state dict with their shapes."""
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in model.state_dict().items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@torch.inference_mode()
def outputs(open_clip: Any, name: str, *, quick_gelu: bool) -> dict[str, Any]:
    suffix = "-quickgelu" if quick_gelu else ""
    model = open_clip.create_model(MODELS[name] + suffix, force_image_size=None).eval()
    fill(model)
    constants = importlib.import_module("open_clip.constants")
    mean = torch.tensor(constants.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(constants.OPENAI_DATASET_STD).view(3, 1, 1)
    side = model.visual.image_size
    side = side if isinstance(side, int) else side[0]
    count = 1 if name in ONE_PICTURE else 2
    pixels = (pictures(count, side).float() / 255 - mean) / std
    raw = model.encode_image(pixels)
    return {
        "names": names_digest(model),
        "pictures": count,
        "image": summary(model.encode_image(pixels, normalize=True)),
        "image_norms": raw.norm(dim=1).tolist(),
        "text": summary(model.encode_text(texts(2, 77), normalize=True)),
    }


def resized(open_clip: Any, before: int, after: int) -> list[float]:
    """Return open_clip's embeddings of places, 2 wide, taken from one grid to another."""
    resize = importlib.import_module("open_clip.model").resize_pos_embed
    places = torch.from_numpy(draw("places", 2 * (before**2 + 1))).view(-1, 2)
    weights = {"visual.positional_embedding": places}
    visual = types.SimpleNamespace(grid_size=(after, after))
    resize(weights, types.SimpleNamespace(visual=visual))
    return [round(value, 6) for value in weights["visual.positional_embedding"].flatten().tolist()]


def custom_text_digest(open_clip: Any, name: str) -> str:
    with torch.device("meta"):
        model = open_clip.create_model(MODELS[name], force_custom_text=True, device="meta")
    return names_digest(model)


def main() -> None:
    open_clip = import_open_clip()
    cases = {}
    for name in MODELS:
        cases[name] = outputs(open_clip, name, quick_gelu=True)
        print(name, cases[name]["image_norms"], flush=True)
    for name in WITH_GELU:
        cases[f"{name} with GELU"] = outputs(open_clip, name, quick_gelu=False)
    content = {
        "models": cases,
        "places": {f"{a} to {b}": resized(open_clip, a, b) for a, b in ((4, 6), (6, 4))},
    }
    FIXTURE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
