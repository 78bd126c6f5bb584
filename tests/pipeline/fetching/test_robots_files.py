import gzip
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline import schemas
from pipeline.fetching.exchange import Answer
from pipeline.fetching.fetch import Fetcher, FetchRefused, Limits
from pipeline.fetching.robots import MAX_ROBOTS_BYTES
from pipeline.fetching.robots_files import RobotRules, origins_of, read_robots
from pipeline.fetching.targets import parse_target
from tests.pipeline.hostile_server import BODY, HostileServer, serving

AGENTS = ("witmill", "img2dataset")
SHUT = "User-agent: *\nDisallow: /fine/"


def fetcher(**given) -> Fetcher:
    limits = Limits(user_agent="witmill/1", timeout_s=2, allow_addresses=("127.0.0.0/8",))
    return Fetcher(limits, **given)


def read(*origins: str) -> list[dict]:
    table = read_robots(origins, fetcher(), AGENTS, threads=4)
    return schemas.check(table, schemas.ROBOTS, source="test").to_pylist()


def refusal(url: str, one: Fetcher) -> tuple[str, str | None]:
    with pytest.raises(FetchRefused) as refused:
        one.fetch(url)
    return refused.value.reason, refused.value.detail


def test_origins_are_told_apart_by_scheme_host_and_port():
    urls = ["http://a.example/1", "http://A.example:80/2", "https://a.example/1", "nonsense"]
    urls += ["http://a.example:8080/"]
    expected = ["http://a.example", "http://a.example:8080", "https://a.example"]
    assert origins_of(urls) == expected


def test_what_a_robots_txt_says_to_us_is_kept(web):
    web.robots = f"{SHUT}\n\nUser-agent: other\nDisallow: /\n"
    [row] = read(web.url)
    assert row == {
        "origin": web.url,
        "status": 200,
        "reason": None,
        "text": f"{SHUT}\n",
        "fetched_bytes": len(web.robots),
    }
    assert web.asked[0].headers["User-Agent"] == "witmill/1"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, None), (403, None), (401, None), (204, None), (429, "http_429"), (500, "http_500")],
)
def test_what_is_not_there_allows_and_what_is_broken_does_not(web, status, reason):
    web.robots = status
    web.retry_after = "0"
    [row] = read(web.url)
    assert (row["status"], row["reason"], row["text"]) == (status, reason, "")
    one = fetcher(robots=RobotRules(AGENTS, read_robots([web.url], fetcher(), AGENTS, threads=1)))
    if reason is None:
        assert one.fetch(f"{web.url}/fine/") == BODY
    else:
        assert refusal(f"{web.url}/fine/", one) == ("robots_unreachable", reason)


def test_only_the_first_half_megabyte_counts(web):
    web.robots = "#" * (MAX_ROBOTS_BYTES - 1) + "\n" + SHUT
    [row] = read(web.url)
    assert row["fetched_bytes"] == MAX_ROBOTS_BYTES
    assert row["text"] == ""


def test_a_compressed_bomb_is_cut_at_the_same_size(web, monkeypatch):
    handler = type(
        "Bomb",
        (web.RequestHandlerClass,),
        {
            "robots_txt": lambda self, _: self.answer(
                body=gzip.compress(b"#" * 50_000_000), Content_Encoding="gzip"
            )
        },
    )
    monkeypatch.setattr(web, "RequestHandlerClass", handler)
    [row] = read(web.url)
    assert (row["reason"], row["fetched_bytes"]) == (None, MAX_ROBOTS_BYTES)


@pytest.mark.parametrize(
    ("hops", "reason"), [(3, None), (9, None)], ids=["followed", "given up: there is none"]
)
def test_redirects_are_followed_five_times(web, monkeypatch, hops, reason):
    handler = type(
        "Moved",
        (web.RequestHandlerClass,),
        {"robots_txt": lambda self, _: self.answer(302, b"", Location=f"/redirects/{hops}")},
    )
    monkeypatch.setattr(web, "RequestHandlerClass", handler)
    [row] = read(web.url)
    assert row["reason"] == reason
    assert bool(row["fetched_bytes"]) == (hops == 3)


def test_a_host_that_is_not_reached_gives_its_images_the_same_reason():
    urls = ["http://nothing.invalid", "http://10.0.0.1"]
    rows = read(*urls)
    assert [row["reason"] for row in rows] == ["dns", "private_address"]
    one = fetcher(robots=RobotRules(AGENTS, read_robots(urls, fetcher(), AGENTS, threads=1)))
    assert refusal("http://10.0.0.1/a.jpg", one) == ("private_address", "robots.txt")


def test_what_is_disallowed_is_not_asked_for(web):
    web.robots = SHUT
    one = fetcher(robots=RobotRules(AGENTS, read_robots([web.url], fetcher(), AGENTS, threads=1)))
    assert refusal(f"{web.url}/fine/", one) == ("robots_txt", None)
    assert one.fetch(f"{web.url}/chunked/") == b"hello world"
    assert web.paths() == ["/robots.txt", "/chunked/"]


def test_a_redirect_to_what_another_host_disallows_is_not_followed(web):
    with serving(HostileServer()) as other:
        other.robots = SHUT
        web.away = f"{other.url}/fine/"
        known = read_robots([web.url], fetcher(), AGENTS, threads=1)
        for _ in range(2):
            one = fetcher(robots=RobotRules(AGENTS, known))
            assert refusal(f"{web.url}/away/", one) == ("robots_txt", None)
        assert other.paths() == ["/robots.txt"]


def test_many_threads_that_meet_a_host_ask_for_its_robots_txt_once(web):
    one = fetcher(robots=RobotRules(AGENTS))
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(one.fetch, [f"{web.url}/fine/{i}" for i in range(16)]))
    assert bodies == [BODY] * 16
    assert web.paths().count("/robots.txt") == 1


def test_a_crawl_delay_is_the_pace_of_its_host(web):
    web.robots = "User-agent: *\nCrawl-delay: 0.3"
    one = fetcher(robots=RobotRules(AGENTS))
    for i in range(3):
        one.fetch(f"{web.url}/fine/{i}")
    times = [asked.at for asked in web.asked[1:]]
    assert times[2] - times[0] >= 0.59


def test_rules_are_forgotten_and_read_again_when_they_are_too_many(monkeypatch):
    monkeypatch.setattr("pipeline.fetching.robots_files.MAX_RULES", 50)
    asked, lock = [], threading.Lock()

    class Books:
        def fetch_robots(self, origin):
            with lock:
                asked.append(origin)
            return Answer(200, [], f"User-agent: *\nDisallow: /{origin[-1]}".encode())

    origins = [f"http://{i}.example" for i in range(9)]
    known = read_robots(origins, Books(), AGENTS, threads=3)
    assert sorted(asked) == origins
    rules = RobotRules(AGENTS, known)
    for _ in range(2):
        for origin in origins:
            with pytest.raises(FetchRefused, match="robots_txt"):
                rules.check(parse_target(f"{origin}/{origin[-1]}"), Books())
    assert len(rules._read._origins) == 4
    assert len(asked) == 9
