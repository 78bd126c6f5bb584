"""Pairs to download, a web that counts what it is asked, and a look at what came of it."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from PIL import Image

from pipeline import download, schemas
from pipeline.download import DownloadConfig
from pipeline.runtime import storage
from pipeline.runtime.executor import InlineExecutor
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace


class Web(ThreadingHTTPServer):
    """Serves `files` by path, and a status in their place where one is given; notes what it is asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.files: dict[str, bytes | int] = {}
        self.asked: list[str] = []
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients go away."""


class Handler(BaseHTTPRequestHandler):
    server: Web

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked.append(self.path)
        found = self.server.files.get(self.path, 404)
        body = b"" if isinstance(found, int) else found
        self.send_response(found if isinstance(found, int) else 200)
        self.send_header("Content-Length", str(len(body)))
        if self.path == "/private.jpg":
            self.send_header("X-Robots-Tag", "img2dataset: noai")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve(port: int = 0) -> Iterator[Web]:
    """Serve on loopback while the block runs."""
    server = Web(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def noise(width: int, height: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(rgb: np.ndarray[Any, np.dtype[np.uint8]], kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, kind, **options)
    return file.getvalue()


def png(seed: int = 0, side: int = 20) -> bytes:
    return encoded(noise(side, side, seed), "PNG")


def pairs(urls: list[str], captions: list[str] | None = None) -> pa.Table:
    captions = captions or [f"caption {i}" for i in range(len(urls))]
    rows = [
        {
            "pair_id": xxhash.xxh3_128_hexdigest(f"{url}\0{caption}".encode()),
            "url": url,
            "caption": caption,
            "caption_source": "alt",
            "page_url": None,
            "source": "a.warc",
            "source_offset": i,
            "blur_boxes": None,
            "query_ids": [1, 2],
            "language": "en",
            "language_probability": 0.9,
            "selected_by": [2],
        }
        for i, (url, caption) in enumerate(zip(urls, captions, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=schemas.BALANCED)


def balanced(root: Path | str, *parts: pa.Table) -> Workspace:
    workspace = Workspace(root=str(root))
    stage = begin("balance", Settings(), workspace)
    nothing = schemas.DROPS.empty_table()
    stage.finish(
        [
            stage.output(i).write(
                rows_in=part.num_rows, kept=part, schema=schemas.BALANCED, drops=nothing
            )
            for i, part in enumerate(parts)
        ]
    )
    return workspace


def settings(**given: Any) -> DownloadConfig:
    usual = {"threads": 8, "robots": "ignore", "per_host_rate": 0}
    return DownloadConfig(**{**usual, "allow_addresses": ("127.0.0.0/8",), **given})


def read_table(workspace: Workspace, name: str, schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the rows of a table of the finished download."""
    manifest = workspace.finished("download")
    return [
        row
        for part in manifest.tables.get(name, [])
        for row in pq.read_table(workspace.path(part.path), schema=schema).to_pylist()
    ]


def downloaded(
    workspace: Workspace, config: DownloadConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run the stage; return what it kept and dropped."""
    download.run(config, workspace, InlineExecutor())
    kept = read_table(workspace, "main", schemas.DOWNLOADED)
    return kept, read_table(workspace, "drops", schemas.DROPS)


def stored_bytes(workspace: Workspace, row: dict[str, Any]) -> bytes:
    data = Path(workspace.path(row["image_file"])).read_bytes()
    return data[row["image_offset"] : row["image_offset"] + row["image_length"]]


def files_of(workspace: Workspace) -> dict[str, bytes]:
    """Return the content of all that the finished download holds, by path, but for the manifest."""
    folder = Path(workspace.path("download"))
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@contextmanager
def killed_when(is_last: Callable[[str, str], bool]) -> Iterator[list[str]]:
    """Let the run end at a change of the storage, named by its kind and path; yield what was changed."""
    changes = []

    def step(kind: str, plain: Callable[[str], Any], path: str) -> Any:
        if is_last(kind, path):
            raise Killed
        changes.append(path)
        return plain(path)

    with pytest.MonkeyPatch.context() as patch:
        for kind in ("remove", "atomic_output"):
            patch.setattr(storage, kind, partial(step, kind, getattr(storage, kind)))
        yield changes
