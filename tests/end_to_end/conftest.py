import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.catalog import query_table, view_definitions
from pipeline.runtime.workspace import Workspace

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from pipeline.cli import main
import pipeline.demo
pipeline.demo.EXAMPLE = Path(sys.argv[1])
if __name__ == "__main__":
    raise SystemExit(main(sys.argv[2:]))
"""


@dataclass(frozen=True)
class Example:
    """The miniature web with few training steps, and a port that stays the same for all runs."""

    folder: Path
    script: Path
    port: int

    def command(self, workspace: Path, *options: str) -> list[str]:
        demo = ["demo", "--workspace", str(workspace), "--port", str(self.port), *options]
        return [sys.executable, str(self.script), str(self.folder), *demo]

    def run(self, workspace: Path, *options: str) -> str:
        done = subprocess.run(
            self.command(workspace, *options), env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@dataclass(frozen=True)
class Demo:
    """A workspace that the demo finished, and what it printed."""

    workspace: Workspace
    printed: str


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}


def file_digests(root: str) -> dict[str, str]:
    """Return the sha256 of every Parquet file and tar below `root`, by path."""
    found = (p for p in Path(root).rglob("*") if p.suffix in {".parquet", ".tar"})
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def catalogue_digests(workspace: Workspace) -> dict[str, str]:
    """Return a digest of the sorted rows of every view."""
    digests = {}
    for view in view_definitions(workspace):
        rows = query_table(workspace, f'SELECT * FROM "{view}" ORDER BY ALL').to_pylist()
        digests[view] = hashlib.sha256(repr(rows).encode()).hexdigest()
    return digests


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    folder = tmp_path_factory.mktemp("example") / "web"
    shutil.copytree(ROOT / "examples/web", folder)
    settings = (folder / "demo.toml").read_text()
    head, _, _ = settings.partition("[train]")
    training = '[train]\nmodel = "ViT-mini"\nbatch_size = 64\nsteps = 24\ncheckpoint_every = 4\nthreads = 1\n'
    (folder / "demo.toml").write_text(head + training)
    script = folder.parent / "demo.py"
    script.write_text(SCRIPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Example(folder=folder, script=script, port=port)


@pytest.fixture(scope="session")
def demo(example: Example, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run the demo once, undisturbed, with two workers."""
    folder = tmp_path_factory.mktemp("demo") / "workspace"
    printed = example.run(folder, "--workers", "2")
    return Demo(workspace=Workspace(root=str(folder)), printed=printed)


@pytest.fixture
def check_same_as_demo(demo: Demo) -> Callable[[Path], None]:
    """Return a check that another workspace holds the same bytes and the same catalogue."""

    def check(folder: Path) -> None:
        expected, found = file_digests(demo.workspace.root), file_digests(str(folder))
        assert sorted(found) == sorted(expected)
        assert [name for name in expected if found[name] != expected[name]] == []
        other = Workspace(root=str(folder))
        assert catalogue_digests(other) == catalogue_digests(demo.workspace)

    return check
