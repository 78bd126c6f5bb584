import gzip
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from selectolax.lexbor import LexborHTMLParser

from pipeline.crawl import CrawlReport, Page, crawl, links
from pipeline.errors import ConfigError
from pipeline.miniature_web import MiniatureWeb, read_files, serve

WEB = Path(__file__).parents[2] / "examples" / "web"
DATE = "2026-01-31T00:00:00Z"


@pytest.fixture(scope="module")
def web() -> Iterator[MiniatureWeb]:
    with serve(WEB, 0) as running:
        yield running


@pytest.fixture(scope="module")
def crawled(
    web: MiniatureWeb, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CrawlReport]:
    path = tmp_path_factory.mktemp("crawl") / "site.warc.gz"
    return path, crawl([web.seed], hosts=web.hosts, outputs=[str(path)], date=DATE)


def responses(path: Path) -> dict[str, tuple[int | None, str | None, bytes]]:
    found = {}
    with path.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            found[record.headers["WARC-Target-URI"]] = (
                record.http_headers.status_code,
                record.headers.get("WARC-Truncated"),
                record.reader.read(),
            )
    return found


def small_site(tmp_path: Path, pages: dict[str, str], behaviours: str = "") -> Path:
    root = tmp_path / "site"
    root.mkdir()
    with zipfile.ZipFile(root / "portal.zip", "w") as archive:
        for name, text in pages.items():
            archive.writestr(name, text)
    (root / "behaviours.toml").write_text(behaviours)
    return root


def test_fastwarc_reads_every_record_with_valid_digests(crawled: tuple[Path, CrawlReport]) -> None:
    path, report = crawled
    kinds = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file, parse_http=False):
            kinds.append(record.record_type)
            assert record.verify_block_digest()
            assert record.headers["WARC-Date"] == DATE
    assert kinds[0] == WarcRecordType.warcinfo
    assert kinds.count(WarcRecordType.request) == report.pages
    assert kinds.count(WarcRecordType.response) == report.pages
    assert path.stat().st_size == report.bytes


def test_payload_digests_are_valid(crawled: tuple[Path, CrawlReport]) -> None:
    with crawled[0].open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            assert record.verify_payload_digest()


def test_record_ids_are_unique_and_requests_name_their_responses(
    crawled: tuple[Path, CrawlReport],
) -> None:
    with crawled[0].open("rb") as file:
        records = [dict(record.headers) for record in ArchiveIterator(file, parse_http=False)]
    ids = [record["WARC-Record-ID"] for record in records]
    assert len(set(ids)) == len(ids)
    asked = {r["WARC-Concurrent-To"] for r in records if r["WARC-Type"] == "request"}
    assert asked == {r["WARC-Record-ID"] for r in records if r["WARC-Type"] == "response"}


def test_each_record_is_a_gzip_member_of_its_own(crawled: tuple[Path, CrawlReport]) -> None:
    data = crawled[0].read_bytes()
    with crawled[0].open("rb") as file:
        offsets = [record.stream_pos for record in ArchiveIterator(file, parse_http=False)]
    for start, end in zip(offsets, [*offsets[1:], len(data)], strict=True):
        assert gzip.decompress(data[start:end]).startswith(b"WARC/1.1\r\n")


def test_two_crawls_give_the_same_bytes(web: MiniatureWeb, tmp_path: Path) -> None:
    first, second = (tmp_path / name / "site.warc.gz" for name in ("a", "b"))
    for path in (first, second):
        crawl([web.seed], hosts=web.hosts, outputs=[str(path)], date=DATE)
    assert first.read_bytes() == second.read_bytes()


def test_every_page_of_the_site_is_found(
    web: MiniatureWeb, crawled: tuple[Path, CrawlReport]
) -> None:
    pages = {
        f"http://{host}:{web.port}{path}"
        for host, path in read_files(WEB)
        if path.endswith(("/", ".html"))
    }
    closed = f"http://blog.localhost:{web.port}/members/secret.html"
    assert pages - set(responses(crawled[0])) == {closed}
    assert crawled[1].disallowed == [closed]
    assert crawled[1].unreachable == []


def test_no_picture_is_fetched(web: MiniatureWeb, tmp_path: Path) -> None:
    web.requests.clear()
    crawl([web.seed], hosts=web.hosts, outputs=[str(tmp_path / "a.warc.gz")], date=DATE)
    assert not [path for _, path in web.requests if path.endswith((".png", ".jpg", ".gif"))]
    assert ("blog.localhost", "/members/secret.html") not in web.requests
    assert max(web.requests.values()) == 1


def test_what_a_crawl_meets_is_in_the_file(
    web: MiniatureWeb, crawled: tuple[Path, CrawlReport]
) -> None:
    found = responses(crawled[0])

    def blog(path: str) -> tuple[int | None, str | None, bytes]:
        return found[f"http://blog.localhost:{web.port}{path}"]

    assert blog("/nowhere.html")[0] == 404
    assert blog("/old-home.html")[0] == 301
    assert blog("/empty.html")[2] == b""
    assert blog("/damaged.html")[2].startswith(b"\x1f\x8b")
    assert blog("/files/report.pdf")[2].startswith(b"%PDF")
    assert blog("/latin1.html")[2].decode("iso-8859-1").count("crème brûlée")
    assert blog("/shift_jis.html")[2].decode("shift_jis").count("灯台")


def test_about_seven_thousand_pictures_are_seen(crawled: tuple[Path, CrawlReport]) -> None:
    pages = [body for status, _, body in responses(crawled[0]).values() if status == 200]
    seen = sum(len(LexborHTMLParser(body).css("img")) for body in pages if body)
    assert 7000 < seen < 8000


def test_every_planted_page_is_in_the_file(
    web: MiniatureWeb, crawled: tuple[Path, CrawlReport]
) -> None:
    planted = json.loads((WEB / "planted.json").read_text(encoding="utf-8"))
    assert {web.local(entry["page"]) for entry in planted} <= set(responses(crawled[0]))


def test_hosts_not_given_are_left_alone(web: MiniatureWeb, tmp_path: Path) -> None:
    web.requests.clear()
    report = crawl(
        [web.seed], hosts=["portal.localhost"], outputs=[str(tmp_path / "a.warc.gz")], date=DATE
    )
    assert report.pages == 1
    assert {host for host, _ in web.requests} == {"portal.localhost"}


def test_a_seed_elsewhere_is_refused(tmp_path: Path) -> None:
    for seed in (
        "http://other.localhost/",
        "https://shop.localhost/",
        "shop.localhost",
        "http://[x",
    ):
        with pytest.raises(ConfigError, match=r"is not a page of shop\.localhost over http"):
            crawl(
                [seed], hosts=["shop.localhost"], outputs=[str(tmp_path / "a.warc.gz")], date=DATE
            )
    assert list(tmp_path.iterdir()) == []


def test_a_crawl_delay_is_kept(tmp_path: Path) -> None:
    pages = {
        "index.html": "<a href=/a.html>a</a>",
        "a.html": "a",
        "robots.txt": "User-agent: *\nCrawl-delay: 1\n",
    }
    with serve(small_site(tmp_path, pages), 0) as web:
        start = time.monotonic()
        crawl([web.seed], hosts=web.hosts, outputs=[str(tmp_path / "a.warc.gz")], date=DATE)
    assert time.monotonic() - start >= 2


def test_a_robots_txt_that_cannot_be_had_closes_the_host(tmp_path: Path) -> None:
    table = '[[behaviour]]\nhost = "*"\npath = "/robots.txt"\nanswer = "status"\nstatus = 503\n'
    with serve(small_site(tmp_path, {"index.html": "x"}, table), 0) as web:
        report = crawl(
            [web.seed], hosts=web.hosts, outputs=[str(tmp_path / "a.warc.gz")], date=DATE
        )
    assert report.disallowed == [web.seed]
    assert report.pages == 0


def test_broken_answers_do_not_end_the_crawl(tmp_path: Path) -> None:
    pages = {
        "index.html": "<a href=/gone>1</a><a href=/cut.html>2</a><a href=/big>3</a><a href=/good.html>4</a>",
        "cut.html": "half of this is missing",
        "good.html": "good",
    }
    table = "".join(
        f'[[behaviour]]\nhost = "*"\npath = "{path}"\n{answer}\n'
        for path, answer in (
            ("/gone", 'answer = "hang_up"'),
            ("/cut.html", 'answer = "cut"'),
            ("/big", 'answer = "zeros"\nlength = 5000000'),
        )
    )
    path = tmp_path / "a.warc.gz"
    with serve(small_site(tmp_path, pages, table), 0) as web:
        report = crawl([web.seed], hosts=web.hosts, outputs=[str(path)], date=DATE)
        found = responses(path)
    at = web.seed.rstrip("/")
    assert report.unreachable == [f"{at}/gone"]
    assert found[f"{at}/cut.html"][1:] == ("disconnect", b"half of thi")
    assert found[f"{at}/big"][1] == "length"
    assert found[f"{at}/good.html"] == (200, None, b"good")


def test_links_are_resolved_and_escaped() -> None:
    body = b"""<base href="/deep/"><a href="a b.html#part">1</a><a href="\xc3\xa4.html?q=\xc3\xa4">2</a>
        <a href="//other.localhost">3</a><a>4</a><a href="mailto:a@b">5</a><a href="http://[x">6</a>
        <a href="../up.html">7</a><a href=" a%20b.html ">8</a>"""
    page = Page(
        url="http://one.localhost/x/",
        address="127.0.0.1",
        request=b"",
        status=200,
        head=b"",
        body=body,
        media_type="text/html",
        location="",
        truncated="",
    )
    assert links(page) == [
        "http://one.localhost/deep/a%20b.html",
        "http://one.localhost/deep/%C3%A4.html?q=%C3%A4",
        "http://other.localhost/",
        "http://one.localhost/up.html",
    ]


def test_the_file_appears_only_when_whole(tmp_path: Path) -> None:
    def fail(host: str) -> str:
        raise RuntimeError(host)

    with pytest.raises(RuntimeError):
        crawl(
            ["http://a.localhost/"],
            hosts=["a.localhost"],
            outputs=[str(tmp_path / "a.warc.gz")],
            date=DATE,
            resolve=fail,
        )
    assert list(tmp_path.iterdir()) == []
