from collections.abc import Iterator

import pytest

from tests.pipeline.hostile_server import (
    HostileServer,
    secure_context,
    serving,
    write_certificate,
)


@pytest.fixture
def web() -> Iterator[HostileServer]:
    with serving(HostileServer()) as server:
        yield server


@pytest.fixture
def certificate(tmp_path) -> str:
    return write_certificate(tmp_path / "certificate.pem", "pictures.localhost")


@pytest.fixture
def secure_web(certificate) -> Iterator[HostileServer]:
    with serving(HostileServer(secure_context(certificate))) as server:
        yield server
