import pytest
import torch

from train.config import Precision
from train.learning.precision import autocast, choose_precision, make_scaler

CPU = torch.device("cpu")


def test_a_cpu_computes_in_float32_unless_told_otherwise() -> None:
    assert choose_precision("auto", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"


@pytest.mark.gpu
def test_a_gpu_computes_in_16_bits_unless_told_otherwise() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    has_bf16 = torch.cuda.get_device_capability() >= (8, 0)
    assert choose_precision("auto", torch.device("cuda")) == ("bf16" if has_bf16 else "fp16")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_products_are_in_the_chosen_numbers(precision: Precision, dtype: torch.dtype) -> None:
    weight = torch.ones(2, 2)
    with autocast(choose_precision(precision, CPU), CPU):
        assert (weight @ weight).dtype == dtype
    assert make_scaler(choose_precision(precision, CPU), CPU).is_enabled() == (precision == "fp16")
