"""In which numbers the towers compute; weights, loss and optimiser are in float32 whatever is chosen."""

from typing import Literal

import torch

from train.config import Precision

Resolved = Literal["fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(name: Precision, device: torch.device) -> Resolved:
    """Return what `name` means on `device`; auto: bf16 on GPUs that have it, fp16 on others, fp32 on CPUs."""
    if name != "auto":
        return name
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(precision: Resolved, device: torch.device) -> torch.autocast:
    """Return the context in which the towers run."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")


def make_scaler(precision: Resolved, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps gradients in float16 from vanishing; for other numbers it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
