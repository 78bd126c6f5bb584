"""EfficientNet-Lite0 as its paper draws it: each layer by itself, nothing folded."""

import torch
from torch import Tensor
from torch.nn import functional

# Repeats, kernel, stride of the first, widening.
STAGES = (
    (1, 3, 1, 1),
    (2, 3, 2, 6),
    (2, 5, 2, 6),
    (3, 3, 2, 6),
    (3, 5, 1, 6),
    (4, 5, 2, 6),
    (1, 3, 1, 6),
)


def features(weights: dict[str, Tensor], pictures: Tensor) -> Tensor:
    """Return the last feature maps of normalised pictures."""

    def convolve(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        # TensorFlow's SAME: as many outputs as inputs / stride, the odd zero at the end.
        missing = (-(-x.shape[-1] // stride) - 1) * stride + kernel.shape[-1] - x.shape[-1]
        before, after = missing // 2, missing - missing // 2
        padded = functional.pad(x, (before, after, before, after))
        return functional.conv2d(padded, kernel, stride=stride, groups=groups)

    def normalise(x: Tensor, name: str) -> Tensor:
        return functional.batch_norm(
            x,
            weights[f"{name}.running_mean"],
            weights[f"{name}.running_var"],
            weights[f"{name}.weight"],
            weights[f"{name}.bias"],
            eps=1e-3,
        )

    x = functional.relu6(normalise(convolve(pictures, "_conv_stem", 2), "_bn0"))
    number = 0
    for repeats, kernel, first_stride, widening in STAGES:
        for repeat in range(repeats):
            name = f"_blocks.{number}"
            stride = first_stride if repeat == 0 else 1
            y = x
            if widening > 1:
                y = functional.relu6(normalise(convolve(y, f"{name}._expand_conv"), f"{name}._bn0"))
            depthwise = f"{name}._depthwise_conv"
            assert weights[f"{depthwise}.weight"].shape[-1] == kernel
            y = convolve(y, depthwise, stride, groups=y.shape[1])
            y = functional.relu6(normalise(y, f"{name}._bn1"))
            y = normalise(convolve(y, f"{name}._project_conv"), f"{name}._bn2")
            x = x + y if stride == 1 and x.shape == y.shape else y
            number += 1
    return functional.relu6(normalise(convolve(x, "_conv_head"), "_bn1"))


def embed(weights: dict[str, Tensor], pictures: Tensor) -> Tensor:
    """Return unit-length vectors by the generalised mean of power 3."""
    with torch.inference_mode():
        pooled = features(weights, pictures).pow(3).mean((2, 3)).pow(1 / 3)
        return functional.normalize(pooled)
