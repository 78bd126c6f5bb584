"""A download that is killed again and again, and then finishes."""

import hashlib
import multiprocessing
import os
import random
import signal
import tarfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import download, schemas
from pipeline.downloading import journal
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.workspace import Workspace
from tests.pipeline.download_runs import (
    Web,
    balanced,
    downloaded,
    files_of,
    pairs,
    png,
    read_table,
    serve,
    settings,
)

KILLS = 20
IMAGES = 600
THREADS = 4
SLOW_S = 0.03


def download_once(root: str, threads: int, flush_s: float = 0.05) -> None:
    """Download in this process, with flushes that fit a test of seconds."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    journal.FLUSH_S, journal.FLUSH_BYTES = flush_s, 20_000 if flush_s < 1 else 1 << 30
    download.run(
        settings(threads=threads, per_host=threads), Workspace(root=root), InlineExecutor()
    )


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Return what starts a process in milliseconds: with everything imported."""
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
        context.set_forkserver_preload(["tests.end_to_end.warmed_up", __name__])
        first = context.Process(target=time.time)
        first.start()
        first.join()
    return context


@pytest.fixture
def slow_web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    with serve() as web:
        web.files.update({f"/{i}": png(i) for i in range(IMAGES) if i % 10})
        plain = web.RequestHandlerClass.do_GET

        def slowly(handler: BaseHTTPRequestHandler) -> None:
            time.sleep(SLOW_S)
            plain(handler)

        monkeypatch.setattr(web.RequestHandlerClass, "do_GET", slowly)
        yield web


def corpus(root: Path, web: Web) -> Workspace:
    parts = [pairs([f"{web.url}/{i}" for i in range(start, IMAGES, 3)]) for start in range(3)]
    return balanced(root, *parts)


def digest(number: int) -> str:
    return hashlib.sha256(png(number)).hexdigest()


def kept_so_far(workspace: Workspace) -> set[str]:
    """Return the sha256 of every image that a killed run has left."""
    found = set()
    for path in Path(workspace.path("download")).rglob("answers-*/*/*.parquet"):
        found |= set(pq.read_table(path, columns=["image_sha256"])[0].drop_null().to_pylist())
    return found


def wait_for(web: Web, requests: int, process: BaseProcess) -> None:
    """Wait until so many files were asked for: a time would mean other things on a busy machine."""
    while len(web.asked) < requests and process.is_alive():
        time.sleep(0.002)


def check_tars(workspace: Workspace) -> None:
    for path in Path(workspace.path("download")).rglob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                assert len(tar.extractfile(member).read()) == member.size


def test_killed_twenty_times_it_asks_for_nothing_that_is_stored(
    slow_web: Web, processes: ForkServerContext, tmp_path: Path
) -> None:
    workspace = corpus(tmp_path / "killed", slow_web)
    paths = {digest(i): f"/{i}" for i in range(IMAGES)}
    moments = random.Random(1)
    killed, grew = 0, []
    while killed < KILLS:
        stored = {paths[known] for known in kept_so_far(workspace)}
        grew.append(len(stored))
        with slow_web.lock:
            slow_web.asked.clear()
        process = processes.Process(target=download_once, args=(workspace.root, THREADS))
        process.start()
        wait_for(slow_web, moments.randint(0, 40), process)
        process.join(moments.uniform(0, 0.05))
        process.kill()
        process.join()
        killed += process.exitcode != 0
        assert process.exitcode in (0, -9)
        assert not stored & set(slow_web.asked)
        check_tars(workspace)
        if process.exitcode == 0:
            break
    assert killed == KILLS, grew
    stored = {paths[known] for known in kept_so_far(workspace)}
    assert len(stored) > 100
    slow_web.asked.clear()
    download_once(workspace.root, 16)
    assert not stored & set(slow_web.asked)
    undisturbed = corpus(tmp_path / "undisturbed", slow_web)
    downloaded(undisturbed, settings(threads=16, per_host=16))
    assert files_of(workspace) == files_of(undisturbed)
    kept = read_table(workspace, "main", schemas.DOWNLOADED)
    assert sorted(row["url"] for row in kept) == sorted(
        f"{slow_web.url}/{i}" for i in range(IMAGES) if i % 10
    )


def test_ctrl_c_keeps_all_that_had_come(
    slow_web: Web, processes: ForkServerContext, tmp_path: Path
) -> None:
    workspace = corpus(tmp_path, slow_web)
    process = processes.Process(target=download_once, args=(workspace.root, THREADS, 1000.0))
    process.start()
    while len(slow_web.asked) < 60:
        time.sleep(0.01)
    assert process.pid
    os.kill(process.pid, signal.SIGINT)
    begun = time.monotonic()
    process.join(10)
    assert time.monotonic() - begun < 5
    assert process.exitcode == 1
    stored = {f"/{i}" for i in range(IMAGES) if digest(i) in kept_so_far(workspace)}
    assert len(stored) > 30
    slow_web.asked.clear()
    download_once(workspace.root, 16)
    assert not stored & set(slow_web.asked)
