import pytest
import torch

from train.learning.precision import Resolved
from train.running.peaks import known_peak, peak_by_name


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 NVL", "fp16", 835),
        ("NVIDIA H200", "fp32", 67),
        ("NVIDIA GH200 480GB", "bf16", 989),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100-PCIE-40GB", "fp32", 19.5),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA A10G", "bf16", 70),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla T4", "fp32", 8.1),
        ("NVIDIA RTX 6000 Ada Generation", "bf16", 364.2),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
    ],
)
def test_gpus_are_known_by_the_names_that_cuda_gives(
    name: str, precision: Resolved, tera: float
) -> None:
    peak = peak_by_name(name, precision)
    assert peak
    assert peak.flops == tera * 1e12
    assert peak.source


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA A1000",
        "NVIDIA A100X",
        "AMD Instinct MI300X",
        "",
    ],
)
def test_slices_siblings_and_strangers_are_not_taken_for_others(name: str) -> None:
    assert peak_by_name(name, "bf16") is None


@pytest.mark.parametrize("name", ["Tesla T4", "Tesla V100-PCIE-32GB"])
def test_old_gpus_have_no_peak_in_a_format_they_do_not_know(name: str) -> None:
    assert peak_by_name(name, "bf16") is None
    assert peak_by_name(name, "fp16") is not None


def test_a_cpu_has_no_known_peak() -> None:
    assert known_peak(torch.device("cpu"), "fp32") is None
