"""Floating-point operations a second that a device can do at most: what MFU is a share of."""

import re
from dataclasses import dataclass

import torch

from train.learning.precision import Resolved

TERA = 1e12


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Operations a second, two a multiply-add; `source` says who says so."""

    flops: float
    source: str


# What a device is called, its TFLOP/s in half precision (sums in float32, without sparsity) and in
# float32 (without TF32), and where its maker says so. The first that fits counts.
_GPUS: tuple[tuple[str, float, float, str], ...] = (
    (r"B200", 2250, 75, "HGX B200 datasheet"),
    (r"H[12]00 NVL", 835, 60, "H100 NVL datasheet"),
    (r"H100 PCIe", 756, 51, "H100 PCIe datasheet"),
    (r"G?H[12]00|H800", 989, 67, "H100 SXM datasheet"),
    (r"A[18]00", 312, 19.5, "A100 datasheet"),
    (r"A30", 165, 10.3, "A30 datasheet"),
    (r"A40", 149.7, 37.4, "A40 datasheet"),
    (r"A10", 125, 31.2, "A10 datasheet"),
    (r"A10G", 70, 31.5, "A10G datasheet"),
    (r"RTX A6000", 154.8, 38.7, "RTX A6000 datasheet"),
    (r"RTX 6000 Ada", 364.2, 91.1, "RTX 6000 Ada datasheet"),
    (r"L40S", 362, 91.6, "L40S datasheet"),
    (r"L40", 181, 90.5, "L40 datasheet"),
    (r"L4", 121, 30.3, "L4 datasheet"),
    (r"V100-SXM\d", 125, 15.7, "V100 datasheet"),
    (r"V100-PCIE", 112, 14, "V100 datasheet"),
    (r"T4", 65, 8.1, "T4 datasheet"),
    (r"RTX 3090", 71, 35.6, "GA102 white paper"),
    (r"RTX 4090", 165.2, 82.6, "Ada white paper"),
    (r"RTX 5090", 209.5, 104.8, "RTX Blackwell white paper"),
)
_WITHOUT_BFLOAT = ("V100", "T4")
# Slices of a device, and siblings of the same name that are slower or faster.
_OTHERS = re.compile(r"\b(MIG|Laptop|Max-Q|Ti|SUPER|D)\b")


def peak_by_name(name: str, precision: Resolved) -> Peak | None:
    """Return the peak of the GPU that CUDA calls `name`, or None if it is not known."""
    if _OTHERS.search(name):
        return None
    for pattern, half, single, source in _GPUS:
        if re.search(rf"(?<!\w)(?:{pattern})(?!\w)", name):
            if precision == "bf16" and any(old in name for old in _WITHOUT_BFLOAT):
                return None
            return Peak(flops=(single if precision == "fp32" else half) * TERA, source=source)
    return None


def known_peak(device: torch.device, precision: Resolved) -> Peak | None:
    """Return the peak of `device` by its name; None for a CPU."""
    if device.type != "cuda":
        return None
    return peak_by_name(torch.cuda.get_device_name(device), precision)
