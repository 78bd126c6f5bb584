"""Read networks from files: ONNX, TorchScript, and what `witmill train` wrote.

torch and ONNX Runtime are imported where a file asks for them. Each computes on one thread: work is
spread over processes. ONNX and weights are data; TorchScript is a program, for files one trusts.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt

from dedup.embedding import efficientnet
from pipeline.errors import ConfigError, InputError

Device = Literal["auto", "cpu", "cuda"]
Floats = npt.NDArray[np.float32]

CPU_BATCH: Final = 16
CUDA_BATCH: Final = 128
# Of models that take one number of pictures only.
MOST_AT_ONCE: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Network:
    """A computation on pictures.

    Attributes:
        compute: features [batch, dimensions] of normalised pictures [batch, 3, side, side].
        batch: pictures that go through at once, always so many, since another number may change the
            last bits of a result.
        prepared: how its pictures are to be prepared, as far as the file says so.
        is_fixed: whether `prepared` holds the only side it takes.
    """

    compute: Callable[[Floats], Any]
    batch: int
    prepared: Mapping[str, Any] = field(default_factory=dict)
    is_fixed: bool = False


def read_packaged(path: str, device: Device) -> Network:
    """Return EfficientNet-Lite0 with the weights at `path`."""
    layers = efficientnet.read_layers(path)
    # As its authors trained it: grey levels less 127, over 128.
    prepared = {"side": 224, "mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    place = _torch_device(device)
    if place == "cuda":
        return _on_torch(efficientnet.on_torch(layers, place), place, prepared)
    return _on_onnx(efficientnet.as_onnx(layers), "cpu", "efficientnet-lite0", prepared)


def read_network(path: str, device: Device, name: str) -> Network:
    """Return the network of the local file at `path`, called `name` in messages.

    Raises:
        ConfigError: `device` is cuda and there is none.
        InputError: the file is not of a kind that is known, damaged, or takes no pictures.
    """
    if path.lower().endswith(".onnx"):
        _require_one_file(path, name)
        return _on_onnx(path, device, name, {})
    names = _members(path, name)
    if any(member.endswith("/constants.pkl") for member in names):
        return _read_script(path, device, name)
    return _read_trained(path, device, name)


def _members(path: str, name: str) -> list[str]:
    try:
        with ZipFile(path) as archive:
            return archive.namelist()
    except BadZipFile as error:
        raise _not_a_model(name) from error


def _not_a_model(name: str) -> InputError:
    return InputError(
        f"embedding model {name} is no whole model file, expected .onnx, TorchScript or the model of "
        "`witmill train`; weights alone need their program, see docs/embeddings.md"
    )


def _require_one_file(path: str, name: str) -> None:
    """Refuse an ONNX model with weights in other files, which its fingerprint would not know."""
    from onnx import external_data_helper, load

    try:
        model = load(path, load_external_data=False)
    except Exception as error:
        # Its parser's errors have no base class but this that has types.
        raise InputError(f"embedding model {name} is no ONNX file, or a damaged one") from error
    try:
        # Asks for the weights of every tensor, in subgraphs too; those outside are not loaded.
        external_data_helper.convert_model_from_external_data(model)
    except ValueError as error:
        raise InputError(
            f"embedding model {name} has weights in other files, expected one file; save it with "
            "onnx.save_model(onnx.load(FILE), NEW, save_as_external_data=False)"
        ) from error


def _on_onnx(model: str | bytes, device: Device, name: str, prepared: Mapping[str, Any]) -> Network:
    session, is_cuda = _open_session(model, device, name)
    pictures, shape = _input_of(session, name)
    features = session.get_outputs()[0].name
    side = {"side": shape[2]} if isinstance(shape[2], int) else {}
    batch = CUDA_BATCH if is_cuda else CPU_BATCH
    if isinstance(shape[0], int):
        batch = shape[0]
        if not 1 <= batch <= MOST_AT_ONCE:
            raise InputError(
                f"embedding model {name} takes {batch} pictures at once, expected 1 to {MOST_AT_ONCE}"
            )

    def compute(batch_of_pictures: Floats) -> Any:
        return session.run([features], {pictures: batch_of_pictures})[0]

    return Network(
        compute=compute,
        batch=batch,
        prepared={**prepared, **side},
        is_fixed=bool(side),
    )


def _open_session(model: str | bytes, device: Device, name: str) -> tuple[Any, bool]:
    """Return ONNX Runtime's session, and whether it computes on a GPU."""
    import onnxruntime

    present = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not present:
        raise ConfigError(
            "device is cuda, but ONNX Runtime finds none; install onnxruntime-gpu or choose cpu"
        )
    is_cuda = present and device != "cpu"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    providers = ["CUDAExecutionProvider"] if is_cuda else []
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=[*providers, "CPUExecutionProvider"]
        )
    except Exception as error:
        # Its errors have no base class but this.
        raise InputError(
            f"embedding model {name} cannot be read as ONNX: {one_line(error)}"
        ) from error
    return session, is_cuda


def _input_of(session: Any, name: str) -> tuple[str, Sequence[int | str | None]]:
    """Return the name and shape of a session's only input."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        taken = ", ".join(f"{taken.name} {taken.shape}" for taken in inputs)
        raise InputError(
            f"embedding model {name} takes {taken}, expected pictures [n, 3, side, side]"
        )
    return inputs[0].name, shape


def _read_script(path: str, device: Device, name: str) -> Network:
    import torch

    place = _torch_device(device)
    with warnings.catch_warnings():
        # torch would have new models exported otherwise; those published are in this form.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            script = torch.jit.load(path, map_location=place).eval()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise InputError(f"embedding model {name} is damaged: {one_line(error)}") from error
    # SSCD's authors: squeeze to 320 pixels where pictures go in batches.
    return _on_torch(script, place, {"side": 320})


def _read_trained(path: str, device: Device, name: str) -> Network:
    from train.models.clip import PIXEL_MEAN, PIXEL_STD
    from train.running.checkpoint import build_model, read_torch_file

    content = read_torch_file(path, _not_a_model(name))
    if not isinstance(content, dict) or not {"spec", "state_dict"} <= content.keys():
        raise _not_a_model(name)
    try:
        model = build_model(content).eval()
    except Exception as error:
        # Anything may stand where the shape and the weights are expected.
        raise InputError(
            f"embedding model {name} is not as `witmill train` writes it: {one_line(error)}"
        ) from error
    place = _torch_device(device)
    prepared = {
        "side": model.spec.resolution,
        "fit": "crop",
        "mean": PIXEL_MEAN,
        "std": PIXEL_STD,
    }
    return _on_torch(model.visual.to(place), place, prepared, is_fixed=True)


def _on_torch(
    network: Callable[[Any], Any],
    place: Literal["cpu", "cuda"],
    prepared: Mapping[str, Any],
    *,
    is_fixed: bool = False,
) -> Network:
    import torch

    def compute(pictures: Floats) -> Any:
        with torch.inference_mode(), _one_thread():
            features = network(torch.from_numpy(pictures).to(place))
        return features.float().cpu().numpy() if isinstance(features, torch.Tensor) else features

    batch = CUDA_BATCH if place == "cuda" else CPU_BATCH
    return Network(compute=compute, batch=batch, prepared=prepared, is_fixed=is_fixed)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _torch_device(device: Device) -> Literal["cpu", "cuda"]:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch finds none; expected auto or cpu here")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def one_line(error: Exception) -> str:
    """Return what a library says went wrong, in one line that is not too long."""
    return " ".join(str(error).split())[:200]
