"""What ranks tell each other before and after a step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.ranks import CPU, run_ranks
from train.learning.distributed import Distributed, alone


def fail_in_turns(ranks: Distributed) -> list[str]:
    """Fail in no rank, in each one, in all; return how this rank left the blocks."""
    left = []
    for failing in ([], [0], [1], [0, 1]):
        try:
            with ranks.together():
                if ranks.rank in failing:
                    raise KeyError("own")
            left.append("whole")
        except KeyError:
            left.append("own error")
        except SystemExit as error:
            left.append(f"exit {error.code}")
    return left


def test_all_ranks_leave_a_block_by_an_error_and_one_tells_it(tmp_path: Path) -> None:
    assert run_ranks(2, fail_in_turns, tmp_path) == [
        ["whole", "own error", "exit 1", "own error"],
        ["whole", "exit 1", "own error", "exit 1"],
    ]


def talk(ranks: Distributed) -> dict[str, Any]:
    own = torch.full((2,), float(ranks.rank))
    ranks.equal([own])
    return {
        "told": ranks.told({"from": ranks.rank}),
        "collected": ranks.collect((ranks.rank, "word")),
        "equal": own.tolist(),
        "first": ranks.is_first,
    }


@pytest.mark.parametrize("world_size", [1, 2])
def test_ranks_hear_the_first_one_and_each_other(world_size: int, tmp_path: Path) -> None:
    results = run_ranks(world_size, talk, tmp_path)
    assert [result.pop("first") for result in results] == [True, False][:world_size]
    for result in results:
        assert result == {
            "told": {"from": 0},
            "collected": [(rank, "word") for rank in range(world_size)],
            "equal": [0.0, 0.0],
        }


def test_alone_an_error_is_ones_own() -> None:
    with pytest.raises(KeyError), alone(CPU).together():
        raise KeyError
