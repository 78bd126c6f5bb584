import os

import pytest
import torch

from pipeline.errors import ConfigError
from train.learning.device import computing, own_cores
from train.learning.distributed import start


def test_a_gpu_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    # CUDA takes a device as the current one by number alone.
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", current.append, raising=False)
    for name in ("auto", "cuda"):
        with computing(name, 1) as device, start(device) as ranks:
            assert ranks.device == torch.device("cuda", 0)
    assert current == [0, 0]


def test_threads_and_algorithms_are_put_back() -> None:
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    with computing("cpu", 2) as device:
        assert device == torch.device("cpu")
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == before


def test_a_gpu_that_is_asked_for_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device is cuda"), computing("cuda", 1):
        pass


def test_processes_of_a_machine_divide_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert own_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    assert own_cores() == 1
