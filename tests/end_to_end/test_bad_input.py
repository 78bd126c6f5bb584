"""What a stranger does wrong: one line that says what to do, exit status 1, nothing half-written."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
WITMILL = [sys.executable, "-m", "pipeline.cli"]


def witmill(*arguments: str | Path, wrap: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*wrap, *WITMILL, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def refused(*arguments: str | Path, wrap: tuple[str, ...] = ()) -> str:
    """Run a command that must fail; return its one line."""
    done = witmill(*arguments, wrap=wrap)
    lines = [line for line in done.stderr.splitlines() if line.startswith("witmill: ")]
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]


def leftovers(workspace: Path) -> list[str]:
    return [str(p.relative_to(workspace)) for p in workspace.rglob("*") if p.name.endswith(".part")]


@pytest.fixture
def captions_file(tmp_path: Path) -> Path:
    path = tmp_path / "captions.parquet"
    captions = [f"a photo of a golden retriever number {i}" for i in range(2000)]
    urls = [f"https://example.org/{i}.jpg" for i in range(2000)]
    pq.write_table(pa.table({"url": urls, "caption": captions}), path)
    return path


@pytest.fixture
def ingested(tmp_path: Path, captions_file: Path) -> Path:
    workspace = tmp_path / "workspace"
    assert witmill("ingest", captions_file, "-w", workspace, "--workers", "0").returncode == 0
    return workspace


def test_an_input_that_does_not_exist(tmp_path: Path) -> None:
    line = refused("ingest", tmp_path / "nothing.warc.gz", "-w", tmp_path / "w")
    assert "nothing.warc.gz does not exist" in line


def test_no_input_at_all(tmp_path: Path) -> None:
    assert "inputs" in refused("ingest", "-w", tmp_path / "w")


def test_an_empty_input(tmp_path: Path) -> None:
    (tmp_path / "empty.warc.gz").touch()
    line = refused("ingest", tmp_path / "empty.warc.gz", "-w", tmp_path / "w", "--workers", "0")
    assert "empty" in line
    assert not (tmp_path / "w/ingest/manifest.json").exists()


def test_an_archive_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "noise.warc.gz").write_bytes(gzip.compress(b"not an archive")[:15] + b"\x00" * 50)
    line = refused("ingest", tmp_path / "noise.warc.gz", "-w", tmp_path / "w", "--workers", "0")
    assert "noise.warc.gz" in line
    assert "expected" in line


def test_a_table_without_a_url_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": ["x"], "words": ["y"]}), tmp_path / "t.parquet")
    line = refused("ingest", tmp_path / "t.parquet", "-w", tmp_path / "w", "--workers", "0")
    assert "picture" in line
    assert "url-column" in line


def test_an_earlier_stage_is_missing(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w/witmill.json").write_text('{"format": 1}')
    line = refused("match", "-w", tmp_path / "w")
    assert "ingest has not finished" in line
    assert "run `witmill ingest`" in line


def test_a_workspace_of_a_newer_version(ingested: Path) -> None:
    (ingested / "witmill.json").write_text(json.dumps({"format": 7}))
    line = refused("match", "-w", ingested)
    assert "format 7" in line
    assert "upgrade" in line


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_part(ingested: Path, damage: str) -> None:
    part = ingested / "ingest/00000.parquet"
    data = bytearray(part.read_bytes())
    if damage == "remove":
        part.unlink()
    elif damage == "cut":
        part.write_bytes(data[:-100])
    else:
        data[len(data) // 2] ^= 0xFF
        part.write_bytes(data)
    line = refused("match", "-w", ingested, "--workers", "0")
    assert "ingest/00000.parquet" in line
    assert "run `witmill ingest` again" in line


def test_a_mended_part_is_accepted_again(ingested: Path, captions_file: Path) -> None:
    (ingested / "ingest/00000.parquet").write_bytes(b"damaged")
    shutil.rmtree(ingested / "ingest")
    assert witmill("ingest", captions_file, "-w", ingested, "--workers", "0").returncode == 0
    assert witmill("match", "-w", ingested, "--workers", "0").returncode == 0


def test_a_file_where_the_workspace_should_be(tmp_path: Path, captions_file: Path) -> None:
    (tmp_path / "w").write_text("a file")
    assert "folder" in refused("ingest", captions_file, "-w", tmp_path / "w")


def in_own_mounts(folder: Path, options: str) -> tuple[str, ...]:
    """Return a wrapper that runs a command with a small or read-only file system at `folder`."""
    unshare = shutil.which("unshare")
    probe = [unshare or "false", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this machine allows no mounts in a namespace of its own")
    script = f'mount -t tmpfs -o {options} tmpfs "{folder}" && exec "$@"'
    return (str(unshare), "-rm", "sh", "-c", script, "sh")


def test_a_full_disk(tmp_path: Path, captions_file: Path) -> None:
    workspace = tmp_path / "small"
    workspace.mkdir()
    wrap = in_own_mounts(workspace, "size=16k")
    line = refused("ingest", captions_file, "-w", workspace, "--workers", "0", wrap=wrap)
    assert "No space left on device" in line
    assert "free some space" in line


def test_a_read_only_workspace(tmp_path: Path, captions_file: Path) -> None:
    workspace = tmp_path / "frozen"
    workspace.mkdir()
    wrap = in_own_mounts(workspace, "ro")
    line = refused("ingest", captions_file, "-w", workspace, wrap=wrap)
    assert "Read-only file system" in line
    assert "choose a place" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[balance]\ncap = 0", "balance.cap is 0, expected greater than or equal to 1"),
        ("[balance]\ncap = 'many'", "balance.cap is 'many', expected a valid integer"),
        (
            "[balance]\nkap = 3",
            "balance.kap is not a setting, expected one of: cap, tail_share, headroom, seed, add",
        ),
        ("[blance]\ncap = 3", "[blance] is no stage, expected one of: ingest, match"),
        ("workspce = 'x'", "workspce is not a setting, expected one of: workspace"),
        ("workers = -1", "workers is -1, expected greater than or equal to 0"),
        ("[balance", "is no valid TOML"),
    ],
)
def test_a_mistake_in_the_file_of_a_run(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    assert expected in refused("run", tmp_path / "run.toml")


def test_a_missing_file_of_a_run(tmp_path: Path) -> None:
    assert "cannot read" in refused("run", tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["match", "-w", "w", "--capp", "3"], "Unknown option"),
        (["balance", "-w", "w", "--cap", "0"], "cap is '0', expected greater than or equal to 1"),
        (["match"], "--workspace"),
        (["match", "-w", ""], "match has no workspace; give --workspace"),
        (["mach", "-w", "w"], "match"),
        (["match", "-w", "/nonexistent"], "no witmill workspace"),
        (["status", "/nonexistent"], "no witmill workspace"),
        (["sql", "/nonexistent", "SELECT 1"], "no witmill workspace"),
        (["catalog", "/nonexistent"], "no witmill workspace"),
    ],
)
def test_a_mistake_on_the_command_line(arguments: list[str], expected: str) -> None:
    assert expected in refused(*arguments)


def test_a_wrong_query(ingested: Path) -> None:
    assert "the query failed" in refused("sql", ingested, "SELECT nothing FROM nowhere")


def test_a_part_that_is_gone_is_named_by_a_query(ingested: Path) -> None:
    (ingested / "ingest/00000.parquet").unlink()
    assert "00000.parquet is missing" in refused("sql", ingested, "SELECT count(*) FROM pairs")


def test_several_queries_at_once(ingested: Path) -> None:
    assert "2 statements were given" in refused("sql", ingested, "SELECT 1; SELECT 2")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_says_how_to_go_on(tmp_path: Path, ending: signal.Signals) -> None:
    rows = 200_000
    table = pa.table(
        {
            "url": [f"https://example.org/{i}.jpg" for i in range(rows)],
            "caption": [f"a picture of a dog number {i}" for i in range(rows)],
        }
    )
    pq.write_table(table, tmp_path / "many.parquet")
    workspace = tmp_path / "w"
    plan = tmp_path / "run.toml"
    plan.write_text(
        f'workspace = "{workspace}"\n[ingest]\ninputs = ["{tmp_path / "many.parquet"}"]\n'
    )
    command = [*WITMILL, "run", str(plan), "--to", "balance"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (workspace / "ingest/_run").exists():
        time.sleep(0.01)
    # A terminal sends Ctrl-C to the whole group, `kill` a signal to one process.
    if ending == signal.SIGINT:
        os.killpg(process.pid, ending)
    else:
        process.send_signal(ending)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command to go on" in errors
    assert "Traceback" not in errors
    assert subprocess.run(command, cwd=ROOT, timeout=120).returncode == 0
    assert leftovers(workspace) == []


def test_two_commands_at_once(ingested: Path) -> None:
    import fcntl

    with (ingested / "witmill.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another witmill is at work" in refused("match", "-w", ingested)
