import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import download
from pipeline.errors import ConfigError
from pipeline.fetching import curl_transport
from pipeline.fetching.blocklist import load_blocklist
from pipeline.fetching.exchange import Exchange
from pipeline.fetching.fetch import Fetcher, FetchRefused, Limits
from tests.pipeline.hostile_server import BODY, HostileServer, serving

LOOPBACK = ("127.0.0.0/8",)


def fetcher(**limits) -> Fetcher:
    given = {"user_agent": "witmill/1 (+test)", "timeout_s": 5, "max_bytes": 1_000_000}
    return Fetcher(Limits(**{**given, "allow_addresses": LOOPBACK, **limits}))


def refusal(url: str, **limits) -> tuple[str, str | None]:
    with pytest.raises(FetchRefused) as refused:
        fetcher(**limits).fetch(url)
    reason, detail = refused.value.reason, refused.value.detail
    assert reason in download.REASONS or reason.startswith("http_")
    assert "0x" not in (detail or "")
    return reason, detail


def test_the_bytes_come_back_whole(web):
    assert fetcher().fetch(f"{web.url}/fine/") == BODY
    assert fetcher().fetch(f"{web.url}/chunked/") == b"hello world"
    assert fetcher(max_bytes=len(BODY)).fetch(f"{web.url}/fine/") == BODY


def test_the_request_says_who_asks_and_for_what(web):
    fetcher().fetch(f"{web.url}/fine/a b?q=ü#part")
    [asked] = web.asked
    assert asked.path == "/fine/a%20b?q=%C3%BC"
    headers = asked.headers
    assert headers["User-Agent"] == "witmill/1 (+test)"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Host"] == web.url.removeprefix("http://")
    assert sorted(headers) == ["Accept", "Accept-Encoding", "Host", "User-Agent"]


def test_passwords_in_an_address_are_not_sent(web):
    fetcher().fetch(f"{web.url}/fine/".replace("//", "//user:secret@"))
    assert "Authorization" not in web.asked[0].headers


def test_what_a_server_sets_is_not_carried_to_the_next_request(web):
    one = fetcher()
    one.fetch(f"{web.url}/cookie/")
    one.fetch(f"{web.url}/fine/")
    assert "Cookie" not in web.asked[1].headers


def test_a_password_file_is_not_read(web, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine pictures.localhost login user password secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    fetcher().fetch(f"{web.url}/fine/")
    assert "Authorization" not in web.asked[0].headers


def test_one_connection_serves_request_after_request(web):
    one = fetcher()
    for path in ("fine/", "status/404", "redirects/2", "chunked/", "fine/"):
        with contextlib.suppress(FetchRefused):
            one.fetch(f"{web.url}/{path}")
    assert len({asked.connection for asked in web.asked[:7]}) == 1
    assert one.asked == len(web.asked) == 8


def test_an_error_page_is_not_read_to_its_end(web):
    one = fetcher()
    for _ in range(2):
        with pytest.raises(FetchRefused, match="http_404"):
            one.fetch(f"{web.url}/long_status/404")
    assert len({asked.connection for asked in web.asked}) == 2


def test_proxies_of_the_environment_are_ignored(web, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetcher().fetch(f"{web.url}/fine/") == BODY


@pytest.mark.parametrize(
    ("path", "reason", "detail"),
    [
        ("status/404", "http_404", None),
        ("status/500", "http_500", None),
        ("status/204", "http_204", None),
        ("status/302", "http_302", None),
        ("empty/", "empty", None),
        ("gzipped/", "content_encoding", "gzip"),
        ("announced/", "too_large", "999999999999999999 bytes announced"),
        ("endless/", "too_large", "more than 1000000 bytes"),
        ("cut/", "connection", "closed before the end"),
        ("cut_chunk/", "connection", "closed before the end"),
        ("silence/", "connection", "closed before the end"),
        ("announced_absurdly/", "too_large", "99999999999999999999 bytes announced"),
        ("announced_twice/", "bad_response", "no HTTP"),
        ("crumbs/", "too_large", "more than 1000000 bytes"),
        ("transfer/gzip", "content_encoding", "in transfer"),
        ("transfer/gzip, chunked", "content_encoding", "in transfer"),
        ("transfer/deflate", "content_encoding", "in transfer"),
        ("transfer/br", "content_encoding", "in transfer"),
        ("broken_chunk/", "bad_response", "broken chunks"),
        ("garbage/", "bad_response", "no HTTP"),
        ("ancient/", "bad_response", "no HTTP"),
        ("flood/", "bad_response", "headers too long"),
        ("many_headers/", "bad_response", "headers too long"),
        ("long_header/", "bad_response", "headers too long"),
        ("status/101", "http_101", None),
        ("loop/0", "too_many_redirects", "more than 5"),
        ("redirects/5", "too_many_redirects", "more than 5"),
    ],
)
def test_what_a_server_does_wrong_has_a_reason(web, path, reason, detail):
    assert refusal(f"{web.url}/{path}") == (reason, detail)


def test_one_byte_over_the_limit_is_too_large(web):
    assert refusal(f"{web.url}/fine/", max_bytes=len(BODY) - 1)[0] == "too_large"


@pytest.mark.parametrize("path", ["slow_body/", "slow_header/", "continues/"])
def test_a_slow_drip_ends_at_the_deadline(web, path):
    begun = time.monotonic()
    assert refusal(f"{web.url}/{path}", timeout_s=0.4) == ("timeout", "0.4 s")
    assert time.monotonic() - begun < 2


def test_the_deadline_spans_all_redirects(web):
    begun = time.monotonic()
    assert refusal(f"{web.url}/lazy/", timeout_s=0.5)[0] == "timeout"
    assert time.monotonic() - begun < 1


def test_what_is_sent_beyond_the_announced_length_is_not_read(web):
    assert fetcher().fetch(f"{web.url}/more_than_announced/") == b"hello"


def test_five_redirects_are_followed(web):
    assert fetcher().fetch(f"{web.url}/redirects/4") == BODY


def test_a_redirect_beyond_ascii_is_followed(web):
    assert fetcher().fetch(f"{web.url}/unicode/") == BODY
    assert web.asked[1].path == "/fine/f%C3%BCr"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("ftp://example.com/x", ("bad_url", "scheme ftp")),
        ("file:///etc/passwd", ("bad_url", "scheme file")),
        ("http://[", ("bad_url", "redirect")),
        ("http://169.254.169.254/latest/meta-data", ("private_address", "169.254.169.254")),
        ("http://10.0.0.1/", ("private_address", "10.0.0.1")),
        ("//2130706434:99999/", ("bad_url", None)),
    ],
)
def test_a_redirect_is_checked_like_an_address(web, target, expected):
    web.away = target
    assert refusal(f"{web.url}/away/") == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/x.jpg", "bad_url"),
        ("javascript:alert(1)", "bad_url"),
        ("data:image/png;base64,AAAA", "bad_url"),
        ("//example.com/x.jpg", "bad_url"),
        ("http://", "bad_url"),
        ("http:///x.jpg", "bad_url"),
        ("http://example.com:99999/", "bad_url"),
        ("http://exa mple.com/", "bad_url"),
        ("", "bad_url"),
        ("http://nothing.invalid/x.jpg", "dns"),
        ("http://nothing.invalid./x.jpg", "dns"),
        ("http://" + "a" * 70 + ".localhost.invalid/", "dns"),
        ("http://" + "a" * 70 + ".com/", "dns"),
        ("http://127.0.0.1/x.jpg", "private_address"),
        ("http://localhost/x.jpg", "private_address"),
        ("http://picture.localhost/x.jpg", "private_address"),
        ("http://2130706433/x.jpg", "private_address"),
        ("http://0x7f.1/x.jpg", "private_address"),
        ("http://[::1]/x.jpg", "private_address"),
        ("http://[::ffff:127.0.0.1]/x.jpg", "private_address"),
        ("http://0.0.0.0/x.jpg", "private_address"),
        ("http://192.168.1.1/x.jpg", "private_address"),
    ],
)
def test_an_address_that_may_not_be_asked_is_refused(url, reason):
    assert refusal(url, allow_addresses=())[0] == reason


def test_a_closed_port_is_a_connection_failure():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}/") == ("connection", "Connection refused")


def test_an_owner_who_says_no_is_heard(web):
    assert refusal(f"{web.url}/tagged/noai") == ("robots_tag", "noai")
    assert refusal(f"{web.url}/tagged/Witmill:%20noindex") == ("robots_tag", "noindex")
    assert fetcher().fetch(f"{web.url}/tagged/otherbot:%20noindex") == BODY


def test_a_host_is_not_asked_for_more_than_its_share_at_a_time(web):
    one = fetcher(per_host=2, timeout_s=0.3)
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(one.fetch, [f"{web.url}/shared/{i}" for i in range(10)]))
    assert bodies == [BODY] * 10
    assert web.most_at_once == 2


def test_an_untrusted_certificate_is_refused(secure_web):
    reason, detail = refusal(f"{secure_web.url}/fine/")
    assert (reason, detail) == ("tls", "self-signed certificate")


def test_a_certificate_for_another_name_is_refused(secure_web, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    reason, detail = refusal(f"{secure_web.url}/fine/".replace("pictures", "paintings"))
    assert (reason, detail) == ("tls", "certificate is for another name")


def test_plain_text_where_tls_was_expected_is_refused(web):
    assert refusal(f"{web.url}/fine/".replace("http:", "https:"))[0] == "tls"


def test_a_trusted_certificate_is_enough(secure_web, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert fetcher().fetch(f"{secure_web.url}/fine/") == BODY
    assert secure_web.asked[0].headers["Host"] == secure_web.url.removeprefix("https://")


def test_a_slow_drip_over_tls_ends_at_the_deadline(secure_web, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert refusal(f"{secure_web.url}/slow_body/", timeout_s=0.5)[0] == "timeout"


def test_a_silent_tls_handshake_ends_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        assert refusal(url, timeout_s=0.3)[0] == "timeout"


def test_encryption_is_not_given_up_on_the_way(web, secure_web, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    secure_web.away = f"{web.url}/fine/"
    web.away = f"{secure_web.url}/fine/"
    assert refusal(f"{secure_web.url}/away/") == ("bad_url", "redirect from https to http")
    assert fetcher().fetch(f"{web.url}/away/") == BODY


def test_encryption_may_be_given_up_on_purpose(web, secure_web, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    secure_web.away = f"{web.url}/fine/"
    assert fetcher(allow_downgrade=True).fetch(f"{secure_web.url}/away/") == BODY


@pytest.mark.parametrize("file", ["nowhere.pem", "no_certificates.pem"])
def test_certificates_that_are_none_are_a_mistake_of_ours(file, tmp_path, monkeypatch):
    (tmp_path / "no_certificates.pem").write_text("hello")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / file))
    with pytest.raises(ConfigError, match=f"SSL_CERT_FILE is .*{file}, expected a file"):
        fetcher()


@pytest.fixture
def names(monkeypatch):
    """Return what names lead to, in place of the resolver; the first answer of each is left out once given."""
    known: dict[str, list[list[str]]] = {}

    def getaddrinfo(host, port, **_):
        answers = known[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    curl_transport.process_names.cache_clear()
    yield known
    curl_transport.process_names.cache_clear()


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::ffff:7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "0.0.0.0"]
)
def test_a_public_name_that_leads_to_a_private_address_is_refused(web, names, address):
    names["rebinding.example"] = [[address]]
    url = f"http://rebinding.example:{web.port}/fine/"
    assert refusal(url, allow_addresses=()) == ("private_address", address)
    assert web.asked == []


def test_a_name_that_leads_elsewhere_the_second_time_gains_nothing(web, names, monkeypatch):
    monkeypatch.setattr("pipeline.fetching.names.KEPT_S", 0)
    names["rebinding.example"] = [["192.0.2.1"], ["10.0.0.1"]]
    url = f"http://rebinding.example:{web.port}/fine/"
    opened = ("192.0.2.0/24",)
    assert refusal(url, allow_addresses=opened, timeout_s=0.3)[0] in ("timeout", "connection")
    assert refusal(url, allow_addresses=opened) == ("private_address", "10.0.0.1")


def test_what_libcurl_connects_to_is_checked_whatever_it_was_told(web, names, monkeypatch):
    names["rebinding.example"] = [["192.0.2.1"]]
    monkeypatch.setattr(
        Exchange,
        "entries",
        lambda self: [f"+rebinding.example:{web.port}:127.0.0.1"],
    )
    url = f"http://rebinding.example:{web.port}/fine/"
    assert refusal(url, allow_addresses=("192.0.2.0/24",)) == ("private_address", "127.0.0.1")
    assert web.asked == []


def test_a_redirect_to_a_name_that_leads_to_a_private_address_is_refused(web, names):
    names["inside.example"] = [["10.0.0.1", "169.254.169.254"]]
    web.away = f"http://inside.example:{web.port}/fine/"
    assert refusal(f"{web.url}/away/") == ("private_address", "10.0.0.1")
    assert web.paths() == ["/away/"]


def test_only_those_of_several_addresses_that_are_open_are_tried(web, names):
    names["mixed.example"] = [["10.0.0.1", "169.254.169.254", "127.0.0.1", "192.168.0.1"]]
    assert fetcher().fetch(f"http://mixed.example:{web.port}/fine/") == BODY


def test_a_dot_at_the_end_of_a_name_changes_nothing(web, names):
    names["dotted.example"] = [["127.0.0.1"]]
    assert fetcher().fetch(f"http://Dotted.example.:{web.port}/fine/") == BODY


@given(st.text(max_size=30))
def test_any_text_for_an_address_gives_a_reason(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("10.0.0.1", 0))])
        for url in (f"http://127.0.0.1:1/{text}", f"http://{text}:1/", f"https://{text}@[::1]:1"):
            with pytest.raises(FetchRefused):
                fetcher(allow_addresses=()).fetch(url)


def test_the_next_address_is_tried_where_one_does_not_answer(web, names):
    names["two.example"] = [["127.0.0.9", "127.0.0.1"]]
    assert fetcher().fetch(f"http://two.example:{web.port}/fine/") == BODY


def test_a_look_up_that_hangs_ends_at_the_deadline(web, monkeypatch):
    curl_transport.process_names.cache_clear()
    released = threading.Event()

    def hang(*_, **__):
        released.wait(5)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    begun = time.monotonic()
    assert refusal("http://slow.example/", timeout_s=0.3) == ("timeout", "0.3 s")
    assert fetcher().fetch(f"{web.url}/fine/") == BODY
    assert time.monotonic() - begun < 2
    released.set()
    curl_transport.process_names.cache_clear()


def test_an_owner_who_reserves_mining_is_heard(web):
    assert refusal(f"{web.url}/reserved/1") == ("tdm_reservation", None)
    assert fetcher().fetch(f"{web.url}/reserved/0") == BODY
    reason, _ = refusal(f"{web.url}/tagged/tdm-reservation:%201")
    assert reason == "tdm_reservation"


def test_a_busy_host_is_asked_again_when_it_said(web):
    web.retry_after = "1"
    web.times_left["/busy/429"] = 1
    assert fetcher(timeout_s=0.5).fetch(f"{web.url}/busy/429") == BODY
    first, second = web.asked
    assert second.at - first.at >= 1


def test_a_busy_host_may_name_a_date(web):
    web.retry_after = formatdate(time.time() + 2, usegmt=True)
    web.times_left["/busy/503"] = 1
    assert fetcher().fetch(f"{web.url}/busy/503") == BODY
    assert 0.9 <= web.asked[1].at - web.asked[0].at < 4


@pytest.mark.parametrize("form", ["%a %b %d %H:%M:%S %Y", "%a, %d %b %Y %H:%M:%S -0000"])
def test_a_date_that_does_not_say_so_is_one_of_greenwich(web, form, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    web.retry_after = time.strftime(form, time.gmtime(time.time() + 30))
    one = fetcher(max_wait_s=5)
    with pytest.raises(FetchRefused, match="http_429"):
        one.fetch(f"{web.url}/busy/429")
    monkeypatch.undo()
    time.tzset()
    with pytest.raises(FetchRefused, match="host_busy"):
        one.fetch(f"{web.url}/fine/")


def test_a_host_that_stays_busy_is_asked_three_times(web):
    web.retry_after = "0"
    assert refusal(f"{web.url}/busy/503") == ("http_503", None)
    assert len(web.asked) == 3


def test_nobody_waits_longer_than_allowed_and_meanwhile_the_host_is_left_alone(web):
    web.retry_after = "30"
    one = fetcher(max_wait_s=5)
    begun = time.monotonic()
    with pytest.raises(FetchRefused, match="http_429"):
        one.fetch(f"{web.url}/busy/429")
    with pytest.raises(FetchRefused, match="host_busy"):
        one.fetch(f"{web.url}/fine/")
    with pytest.raises(FetchRefused, match="host_busy"):
        fetcher(max_wait_s=5).fetch(f"{web.url}/fine/")
    assert time.monotonic() - begun < 2
    assert web.paths() == ["/busy/429"]


def test_while_one_waits_for_a_busy_host_no_other_asks_it(web):
    web.retry_after = "1"
    web.times_left["/busy/429"] = 1
    one = fetcher(per_host=4)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(one.fetch, f"{web.url}/busy/429")
        time.sleep(0.3)
        rest = list(pool.map(one.fetch, [f"{web.url}/fine/{i}" for i in range(3)]))
        assert [first.result(), *rest] == [BODY] * 4
    assert min(asked.at for asked in web.asked[1:]) - web.asked[0].at >= 1
    assert one.seconds_waited > 2


def test_a_host_that_keeps_saying_no_is_left_alone(web):
    web.retry_after = "0"
    one = fetcher()
    for i in range(5):
        with pytest.raises(FetchRefused, match="http_503"):
            one.fetch(f"{web.url}/busy/503?{i}")
    with pytest.raises(FetchRefused, match="host_busy"):
        one.fetch(f"{web.url}/fine/")
    assert len(web.asked) == 15


def test_a_host_that_answers_in_between_is_not_left_alone(web):
    web.retry_after = "0"
    one = fetcher()
    for i in range(6):
        for path in (f"busy/503?{i}", "status/404"):
            with pytest.raises(FetchRefused, match="http_"):
                one.fetch(f"{web.url}/{path}")
    assert one.fetch(f"{web.url}/fine/") == BODY


def test_a_slow_host_holds_nobody_else_up(web):
    with serving(HostileServer()) as other:
        web.retry_after = "2"
        web.times_left["/busy/429"] = 1
        one = fetcher()
        with ThreadPoolExecutor(2) as pool:
            slow = pool.submit(one.fetch, f"{web.url}/busy/429")
            time.sleep(0.2)
            begun = time.monotonic()
            assert one.fetch(f"{other.url}/fine/") == BODY
            assert time.monotonic() - begun < 1
            assert slow.result() == BODY


def test_a_host_is_asked_no_faster_than_its_rate(web):
    one = fetcher(per_host=8, per_host_rate=20)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one.fetch, [f"{web.url}/fine/{i}" for i in range(20)]))
    times = sorted(asked.at for asked in web.asked)
    assert times[-1] - times[0] >= 19 / 20 - 0.02


def test_waiting_for_a_turn_is_not_the_fault_of_the_image(web):
    one = fetcher(per_host_rate=2, timeout_s=0.4)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one.fetch, [f"{web.url}/fine/{i}" for i in range(3)])) == [BODY] * 3


def test_what_the_block_list_names_is_not_asked_for(web, tmp_path):
    (tmp_path / "list").write_text(f"{web.url}/fine/secret\nelsewhere.example\n")
    blocked = load_blocklist(str(tmp_path / "list"))
    one = Fetcher(fetcher().limits, blocklist=blocked)
    with pytest.raises(FetchRefused, match="blocked"):
        one.fetch(f"{web.url}/fine/secret#part")
    web.away = "https://sub.elsewhere.example/"
    with pytest.raises(FetchRefused, match="blocked"):
        one.fetch(f"{web.url}/away/")
    assert web.paths() == ["/away/"]
