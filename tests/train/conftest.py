from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from pipeline import schemas
from pipeline.runtime.manifest import Manifest
from pipeline.runtime.workspace import Workspace
from tests.train.shards import Pair, write_shard


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep small tests from waiting for cores that other tests use."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def finish_shards(
    workspace: Workspace, finish_stage: Callable[..., Manifest]
) -> Callable[..., Manifest]:
    """Return a function that makes "shard" a finished stage holding the given pairs."""

    def finish(pairs: Sequence[Pair], per_shard: int = 16, made_by: str = "test") -> Manifest:
        tables, tars = [], {}
        for number, start in enumerate(range(0, len(pairs), per_shard)):
            name = f"shard/{number:05d}.tar"
            spool = Path(workspace.root) / "spool" / f"{number:05d}.tar"
            tables.append(write_shard(spool, name, pairs[start : start + per_shard], start))
            tars[name] = spool
        manifest = finish_stage("shard", schemas.SHARD_INDEX, *tables, made_by=made_by)
        for name, spool in tars.items():
            spool.rename(workspace.path(name))
        return manifest

    return finish
