from collections.abc import Iterator

import pytest

from tests.pipeline.download_runs import Web, serve


@pytest.fixture(scope="module")
def no_plot() -> Iterator[None]:
    """Leave out the picture, which takes longer than a small balance and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.caps.balance_report.draw", lambda *_: b"")
        yield


@pytest.fixture
def web() -> Iterator[Web]:
    with serve() as server:
        yield server
