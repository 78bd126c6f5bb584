from pathlib import Path

import pytest

from benchmarks.fuzz_ingest import find_archives, fuzz


@pytest.mark.slow
def test_damaged_archives_are_read_to_their_end(shared_data: Path) -> None:
    seen = fuzz(find_archives(shared_data / "crawl"), seconds=6, seed=11)
    assert seen["files"] > 20
    assert seen["pairs"] > 1000
    assert seen["broken_record"] > 20
