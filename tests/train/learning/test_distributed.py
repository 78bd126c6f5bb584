import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pipeline.errors import ConfigError
from tests.train.ranks import CPU, environment, free_port, own_rows, run_ranks
from train.learning.distributed import MEETING, PLACE, Distributed, alone, start

ROOT = Path(__file__).parents[3]
SHARES = {1: [[3]], 2: [[2, 2], [3, 1], [0, 2]], 4: [[2, 2, 2, 2], [1, 0, 3, 2], [0, 0, 0, 1]]}


@pytest.fixture(autouse=True)
def without_torchrun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in PLACE + MEETING:
        monkeypatch.delenv(name, raising=False)
    yield
    assert not dist.is_initialized()


def gather_all(distributed: Distributed, shares: list[list[int]]) -> list[Any]:
    return [gather_once(distributed, share) for share in shares]


def gather_once(distributed: Distributed, share: list[int]) -> dict[str, Any]:
    """Gather rows numbered over all ranks and weigh them differently on each rank."""
    numbers = torch.arange(sum(share) * 6, dtype=torch.float64).view(-1, 3, 2)
    own = numbers[own_rows(distributed, share)].clone().requires_grad_()
    gathered = distributed.gather(own)
    (gathered * numbers * 10**distributed.rank).sum().backward()
    return {
        "shares": distributed.shares(len(own)),
        "gathered": gathered.detach(),
        "gradient": own.grad,
        "sum": distributed.sum(torch.tensor(distributed.rank + 1.0)),
    }


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_rank_gets_all_rows_and_the_sum_of_all_gradients_of_its_own(
    world_size: int, tmp_path: Path
) -> None:
    results = run_ranks(world_size, gather_all, tmp_path, SHARES[world_size])
    for case, share in enumerate(SHARES[world_size]):
        numbers = torch.arange(sum(share) * 6, dtype=torch.float64).view(-1, 3, 2)
        of_ranks = [result[case] for result in results]
        for rank, found in enumerate(of_ranks):
            assert found["shares"] == share
            assert torch.equal(found["gathered"], numbers)
            own = numbers[sum(share[:rank]) : sum(share[: rank + 1])]
            assert torch.equal(found["gradient"], own * int("1" * world_size))
            assert found["sum"] == world_size * (world_size + 1) / 2


def test_without_torchrun_a_process_is_alone() -> None:
    with start(CPU) as distributed:
        assert distributed == alone(CPU)
        assert not dist.is_initialized()
    rows = torch.ones(3, 2)
    assert distributed.gather(rows) is rows
    assert distributed.shares(3) == [3]
    assert distributed.sum(torch.tensor(2.0)) == 2


def test_one_process_of_torchrun_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(0, 1, free_port()).items():
        monkeypatch.setenv(name, value)
    with start(CPU) as distributed:
        assert distributed == alone(CPU)
        assert not dist.is_initialized()


@pytest.mark.parametrize("missing", [*PLACE, *MEETING])
def test_an_environment_that_is_half_set_is_refused(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(missing, "")
    with pytest.raises(ConfigError, match=f"but not {missing}; start all processes with torchrun"):
        start(CPU).__enter__()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", "2", "RANK is 2, LOCAL_RANK 0 and WORLD_SIZE 2, expected"),
        ("LOCAL_RANK", "1", "RANK is 0, LOCAL_RANK 1 and WORLD_SIZE 2, expected"),
        ("WORLD_SIZE", "0", "WORLD_SIZE 0, expected"),
        ("RANK", "-1", "RANK is '-1', expected a number"),
        ("WORLD_SIZE", "two", "WORLD_SIZE is 'two', expected a number"),
        ("LOCAL_RANK", "²", "LOCAL_RANK is '²', expected a number"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each, number in environment(0, 2, 1).items():
        monkeypatch.setenv(each, number)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        start(CPU).__enter__()


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    present = torch.cuda.device_count()
    for name, value in environment(present, present + 2, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ConfigError, match=f"process {present} of this machine .* but torch finds {present}"
    ):
        start(torch.device("cuda")).__enter__()


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)
    for name, value in environment(0, 2, store.port).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"cannot meet the others at 127.0.0.1:{store.port}"):
        start(CPU).__enter__()


def test_a_port_that_is_no_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "door")
    with pytest.raises(ConfigError, match=r"cannot meet the others at 127\.0\.0\.1:door"):
        start(CPU).__enter__()


def test_torchrun_starts_the_processes_and_they_part_even_after_an_error(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        "from train.learning.distributed import start\n"
        "try:\n"
        "    with start(torch.device('cpu')) as ranks:\n"
        "        rows = ranks.gather(torch.full((1, 2), float(ranks.rank)))\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    assert not torch.distributed.is_initialized()\n"
        "    sys.stdout.write(f'rows {rows.tolist()}\\n')\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    run = subprocess.run(
        [*command, "--nproc-per-node", "2", script],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("rows [[0.0, 0.0], [1.0, 1.0]]") == 2
