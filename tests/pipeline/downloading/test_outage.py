import pytest

from pipeline.downloading.outage import WATCHED_HOSTS, Watch
from pipeline.errors import NetworkDown
from pipeline.fetching.refusals import FetchRefused


def see(watch: Watch, hosts: range, reason: str | None) -> None:
    for host in hosts:
        watch.see(f"http://h{host}.example/a", reason)


def test_hosts_of_which_none_can_be_reached_stop_everything():
    watch = Watch(0.9)
    see(watch, range(WATCHED_HOSTS - 1), "dns")
    with pytest.raises(NetworkDown, match="of the last 200 hosts asked, 200 could not be reached"):
        watch.see("http://last.example/", "timeout")


def test_the_line_says_what_was_seen():
    watch = Watch(0.5)
    see(watch, range(100), "timeout")
    with pytest.raises(
        NetworkDown, match=r"101 could not .* \(dns 1, timeout 100\).* run the same"
    ):
        see(watch, range(100, 300), None) or see(watch, range(400, 500), "timeout") or watch.see(
            "http://x.example/", "dns"
        )


@pytest.mark.parametrize("reason", ["http_404", "not_an_image", "tls", "empty", None])
def test_an_answer_of_any_kind_is_one(reason):
    watch = Watch(0.9)
    see(watch, range(5 * WATCHED_HOSTS), reason)
    assert watch.round == 5 * WATCHED_HOSTS


def test_a_share_of_dead_hosts_is_usual():
    watch = Watch(0.9)
    for host in range(10 * WATCHED_HOSTS):
        watch.see(f"http://h{host}.example/a", None if host % 8 == 0 else "dns")
    assert watch.round == 10 * WATCHED_HOSTS


@pytest.mark.parametrize("hosts", [1, 20, WATCHED_HOSTS - 1])
def test_a_corpus_of_few_hosts_stops_nothing(hosts):
    watch = Watch(0.9)
    for _ in range(5):
        see(watch, range(hosts), "dns")
    assert watch.round == hosts


def test_the_network_going_away_is_noticed_within_the_hosts_watched():
    watch = Watch(0.9)
    see(watch, range(1000), None)
    with pytest.raises(NetworkDown):
        see(watch, range(1000, 1000 + WATCHED_HOSTS), "connection")


def test_a_host_counts_by_its_newest_answer():
    watch = Watch(0.9)
    see(watch, range(WATCHED_HOSTS - 1), "dns")
    see(watch, range(50), None)
    see(watch, range(WATCHED_HOSTS, WATCHED_HOSTS + 40), "dns")
    assert watch.round == WATCHED_HOSTS + 39


def test_what_was_not_asked_says_nothing():
    watch = Watch(0.9)

    def fetch(url: str) -> bytes:
        raise FetchRefused("private_address" if "odd" in url else "dns")

    watched = watch.watched(fetch)
    for host in range(2 * WATCHED_HOSTS):
        with pytest.raises(FetchRefused):
            watched(f"http://odd{host}.example/")
    assert watch.round == 0


def test_after_an_outage_nobody_is_asked():
    asked = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        raise FetchRefused("dns")

    watched = Watch(0.9).watched(fetch)
    for host in range(2 * WATCHED_HOSTS):
        with pytest.raises((FetchRefused, NetworkDown)):
            watched(f"http://h{host}.example/")
    assert len(asked) == WATCHED_HOSTS


def test_with_a_limit_of_one_nothing_stops():
    watch = Watch(1.0)
    see(watch, range(3 * WATCHED_HOSTS), "dns")
    assert watch.round == 3 * WATCHED_HOSTS
