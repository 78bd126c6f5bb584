import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.runtime.executor import Executor, make_executor
from pipeline.runtime.manifest import Manifest, Outcome
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import begin
from pipeline.runtime.workspace import Workspace

ROOT = Path(__file__).parent.parent

# No deadlines: a busy machine is not a broken promise. Speed is for benchmarks.
hypothesis.settings.register_profile("witmill", deadline=None)
hypothesis.settings.load_profile("witmill")


class Literals(Settings):
    """Settings of tables that a test wrote down."""

    made_by: str = "test"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=str(tmp_path / "workspace"))


@pytest.fixture
def finish_stage(workspace: Workspace) -> Callable[..., Manifest]:
    """Return a function that makes `stage` a finished stage with the given tables as its parts."""

    def finish(
        stage: str,
        schema: pa.Schema,
        *tables: pa.Table,
        made_by: str = "test",
        workspace: Workspace = workspace,
        **side: tuple[pa.Table, pa.Schema],
    ) -> Manifest:
        run = begin(stage, Literals(made_by=made_by), workspace)
        if run.done:
            return run.done
        outcomes: list[Outcome] = []
        for i, table in enumerate(tables):
            output = run.output(i)
            no_drops = schemas.DROPS.empty_table()
            outcomes.append(
                output.write(rows_in=len(table), kept=table, schema=schema, drops=no_drops)
            )
        for name, (table, side_schema) in side.items():
            run.write_table(name, table, side_schema)
        return run.finish(outcomes)

    return finish


@pytest.fixture(params=["inline", "processes", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "ray":
        with closing(request.getfixturevalue("ray_executor")) as ray_executor:
            yield ray_executor
        return
    workers = 2 if request.param == "processes" else 0
    with closing(make_executor("local", workers=workers)) as local:
        yield local


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Start one Ray node for the session; its workers import from this checkout."""
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'witmill[ray]'")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


@pytest.fixture
def ray_executor(ray_cluster: None) -> Executor:
    return make_executor("ray", workers=2)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data that is not part of the project."""
    found = Path(os.environ.get("WITMILL_DATA", ROOT.parent / "shared" / "data"))
    if not found.is_dir():
        pytest.skip(f"real data is not at {found}; set WITMILL_DATA to its folder")
    return found


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Undo what a shell does to its background jobs: they, and what they start, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def s3_bucket(s3_server: str, tmp_path: Path) -> str:
    """Return the URL of an empty place in a bucket, each test its own."""
    return f"{s3_server}/{tmp_path.name}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Serve S3 on loopback and yield the URL of a bucket."""
    boto3 = pytest.importorskip("boto3", reason="S3 is tested with boto3 and moto: extra dev")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(150):
            try:
                urllib.request.urlopen(endpoint, timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_ENDPOINT_URL", endpoint)
            environment.setenv("AWS_ACCESS_KEY_ID", "test")
            environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
            environment.setenv("AWS_REGION", "us-east-1")
            client = boto3.client("s3", region_name="us-east-1")
            client.create_bucket(Bucket="witmill")
            client.close()
            yield "s3://witmill"
    finally:
        server.terminate()
        server.wait()
