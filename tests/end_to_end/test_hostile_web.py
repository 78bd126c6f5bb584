"""A web that does everything wrong, and `witmill download` with worker processes in the middle of it."""

import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.end_to_end.conftest import environment
from tests.pipeline.download_runs import balanced, encoded, noise, pairs
from tests.pipeline.hostile_server import (
    HostileServer,
    secure_context,
    serving,
    write_certificate,
)

# A name of the real net that leads inside: in place of the resolver, in every worker.
SCRIPT = """
import resource, socket, sys
from pathlib import Path
from pipeline.cli import main

original = socket.getaddrinfo

def getaddrinfo(host, port, *rest, **options):
    if host == "rebinding.example":
        addresses = ("10.0.0.1", "169.254.169.254")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]
    return original(host, port, *rest, **options)

socket.getaddrinfo = getaddrinfo
if __name__ == "__main__":
    status = main(sys.argv[1:])
    # Of the workers: a process's own figure begins with what its parent held when it forked.
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    Path(sys.argv[0]).with_name("peak").write_text(str(workers))
    raise SystemExit(status)
"""

TIMEOUT_S = 4.0
PACED, RATE = 32, 10.0
ENDLESS = 16


def png_bomb() -> bytes:
    """Return 40 KB that announce 20,000 x 20,000 pixels and hold them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = zlib.compress(bytes(20_000 * 2_501), 9)
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


PHOTOGRAPH = encoded(noise(80, 60), "JPEG")
FILES = {
    "/file/good.jpg": PHOTOGRAPH,
    "/file/bomb.png": png_bomb(),
    "/file/drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9"/></svg>',
    "/file/page.jpg": b"<!doctype html><title>Not found</title>",
    "/file/truncated.jpg": PHOTOGRAPH[: len(PHOTOGRAPH) // 2],
}
REASONS = {
    "/loop/0": "too_many_redirects",
    "/to/http:%2F%2F169.254.169.254/latest/meta-data": "private_address",
    "/to/http:%2F%2F[::1]/": "private_address",
    "/to/file:%2F%2F/etc/passwd": "bad_url",
    "/slow_body/": "timeout",
    "/slow_header/": "timeout",
    "/continues/": "timeout",
    "/endless/": "too_large",
    "/announced/": "too_large",
    "/crumbs/": "too_large",
    "/cut/": "connection",
    "/silence/": "connection",
    "/cut_chunk/": "connection",
    "/broken_chunk/": "bad_response",
    "/flood/": "bad_response",
    "/many_headers/": "bad_response",
    "/ancient/": "bad_response",
    "/gzipped/": "content_encoding",
    "/transfer/gzip": "content_encoding",
    "/empty/": "empty",
    "/status/404": "http_404",
    "/busy/429": "http_429",
    "/busy/503": "http_503",
    "/tagged/noai": "robots_tag",
    "/tagged/witmill:noindex": "robots_tag",
    "/reserved/1": "tdm_reservation",
    "/file/bomb.png": "too_many_pixels",
    "/file/drawing.svg": "not_an_image",
    "/file/page.jpg": "not_an_image",
    "/file/truncated.jpg": "truncated_image",
}


@dataclass(frozen=True)
class Run:
    """What was asked for, and what came of it."""

    web: HostileServer
    urls: dict[str, str]
    reasons: dict[str, str]
    details: dict[str, str | None]
    stored: set[str]
    seconds: float
    peak_mb: float


def command(folder: Path) -> list[str]:
    script = folder / "witmill.py"
    script.write_text(SCRIPT)
    options = ["--workspace", str(folder / "w"), "--allow-addresses", "127.0.0.0/8"]
    options += ["--timeout-s", str(TIMEOUT_S), "--max-bytes", "1000000", "--workers", "2"]
    options += ["--per-host-rate", str(RATE), "--blocklist", str(folder / "blocked.txt")]
    return [sys.executable, str(script), "download", *options]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("hostile")
    certificate = write_certificate(folder / "certificate.pem", "secure.localhost")
    with ExitStack() as stack:
        web = stack.enter_context(serving(HostileServer()))
        secure = stack.enter_context(serving(HostileServer(secure_context(certificate))))
        for server in (web, secure):
            server.files = FILES
        web.retry_after = "1"
        web.times_left["/busy/503?once"] = 1
        shut = "User-agent: *\nDisallow: /\n"
        web.robots_of = {"shut.localhost": shut, "broken.localhost": 500}
        secure.away = f"{web.at('downgrade.localhost')}/file/good.jpg"

        def at(host: str, path: str = "/file/good.jpg") -> str:
            return f"{web.at(f'{host}.localhost')}{path}"

        paced = [f"/file/good.jpg?{i}" for i in range(PACED)]
        web.files = FILES | dict.fromkeys(paced, PHOTOGRAPH)
        urls = {path: at(f"h{i}", path) for i, path in enumerate(REASONS)}
        urls |= {
            "good": at("good"),
            "moved": at("moved", f"/to/{at('good').replace('/', '%2F')}"),
            "secure": f"{secure.at('secure.localhost')}/file/good.jpg",
            "another name": f"{secure.at('other.localhost')}/file/good.jpg",
            "downgrade": f"{secure.at('secure.localhost')}/away/",
            "plain": at("plain").replace("http:", "https:"),
            "rebinding": f"http://rebinding.example:{web.port}/file/good.jpg",
            "sent inside": at("sent", f"/to/http:%2F%2Frebinding.example:{web.port}%2F"),
            "mapped": f"http://[::ffff:7f00:1]:{web.port}/file/good.jpg",
            "inside": "http://192.168.0.1/file/good.jpg",
            "no such name": "http://nothing.invalid/x.jpg",
            "shut": at("shut"),
            "broken": at("broken"),
            "sent to a shut one": at("sender", f"/to/{at('shut').replace('/', '%2F')}"),
            "blocked": at("blocked"),
        }
        urls |= {f"paced {path}": at("paced", path) for path in paced}
        urls |= {f"endless {i}": at(f"endless{i}", "/endless/") for i in range(ENDLESS)}
        (folder / "blocked.txt").write_text("blocked.localhost\n")
        web.times_left["/busy/503"] = web.times_left["/busy/429"] = 10**6
        tables = [pairs(list(urls.values())[i::2]) for i in range(2)]
        balanced(folder / "w", *tables)
        begun = time.monotonic()
        with (folder / "said").open("w") as said:
            ended = subprocess.run(
                command(folder),
                env=environment() | {"SSL_CERT_FILE": certificate},
                stdout=said,
                stderr=said,
                check=False,
            )
        seconds = time.monotonic() - begun
        assert ended.returncode == 0, (folder / "said").read_text()
        by_id = {pair["pair_id"]: pair["url"] for t in tables for pair in t.to_pylist()}
        drops = pq.read_table(folder / "w/download/drops").to_pylist()
        kept = [pq.read_table(p) for p in sorted((folder / "w/download").glob("*.parquet"))]
        yield Run(
            web=web,
            urls=urls,
            reasons={by_id[drop["pair_id"]]: drop["reason"] for drop in drops},
            details={by_id[drop["pair_id"]]: drop["detail"] for drop in drops},
            stored={url for table in kept for url in table.column("url").to_pylist()},
            seconds=seconds,
            peak_mb=int((folder / "peak").read_text()) / 1024,
        )


def test_every_wrong_has_its_reason(run: Run) -> None:
    found = {path: run.reasons.get(run.urls[path]) for path in REASONS}
    assert found == REASONS


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("another name", "tls"),
        ("plain", "tls"),
        ("downgrade", "bad_url"),
        ("rebinding", "private_address"),
        ("sent inside", "private_address"),
        ("inside", "private_address"),
        ("no such name", "dns"),
        ("shut", "robots_txt"),
        ("broken", "robots_unreachable"),
        ("sent to a shut one", "robots_txt"),
        ("blocked", "blocked"),
    ],
)
def test_where_a_request_may_not_go_it_does_not(run: Run, name: str, reason: str) -> None:
    assert run.reasons[run.urls[name]] == reason


def test_what_is_right_is_stored(run: Run) -> None:
    # A mapped address is the address it maps, and that is open here.
    right = ("good", "moved", "secure", "mapped")
    paced = {url for name, url in run.urls.items() if name.startswith("paced")}
    assert run.stored == {run.urls[name] for name in right} | paced


def test_nothing_hangs(run: Run) -> None:
    # Starting two workers takes most of it; of the images, the slowest is one that waits twice a second.
    assert run.seconds < 90


def test_nobody_is_asked_who_is_not_to_be(run: Run) -> None:
    hosts = {asked.host for asked in run.web.asked if asked.path != "/robots.txt"}
    assert not hosts & {"shut.localhost", "broken.localhost", "blocked.localhost"}
    assert not any("rebinding" in asked.host for asked in run.web.asked)


def test_a_robots_txt_is_read_once_for_each_host(run: Run) -> None:
    read = Counter(asked.host for asked in run.web.asked if asked.path == "/robots.txt")
    assert set(read.values()) == {1}
    assert len(read) > len(REASONS)


def test_a_busy_host_is_asked_three_times_at_its_own_pace(run: Run) -> None:
    times = [asked.at for asked in run.web.asked if asked.path == "/busy/429"]
    assert len(times) == 3
    assert min(b - a for a, b in pairwise(times)) >= 1


def test_a_host_is_asked_no_faster_than_its_rate_by_two_workers(run: Run) -> None:
    asked = sorted(
        a.at for a in run.web.asked if a.host == "paced.localhost" and a.path != "/robots.txt"
    )
    assert len(asked) == PACED
    # The server hears of a request late, by what a busy machine needs. Each worker for itself
    # would take half the time.
    assert asked[-1] - asked[0] >= (PACED - 1) / RATE - 0.5
    for first, last in zip(asked, asked[16:], strict=False):
        assert last - first >= 16 / RATE - 0.5


def test_bodies_of_ten_gigabytes_take_no_memory(run: Run) -> None:
    endless = [url for name, url in run.urls.items() if name.startswith("endless")]
    assert [run.reasons[url] for url in endless] == ["too_large"] * ENDLESS
    # Of the largest process. Libraries take 600 MB of it; the bodies would be 160 GB.
    assert run.peak_mb < 800
