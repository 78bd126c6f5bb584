import math
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import ip_network

import certifi
import pycurl
import pytest

from pipeline.fetching.curl_transport import Transport
from pipeline.fetching.exchange import Answer, Request
from pipeline.fetching.targets import parse_target
from tests.pipeline.hostile_server import BODY

LOOPBACK = (ip_network("127.0.0.0/8"),)


def request(url: str, seconds: float = 20) -> Request:
    return Request(
        target=parse_target(url),
        headers=(),
        deadline=time.monotonic() + seconds,
        max_bytes=1_000_000,
        wants_body=lambda *_: True,
    )


def asked(transport: Transport, url: str, seconds: float = 20) -> Future[Answer]:
    """Ask in a thread that does not keep the process if it hangs."""
    answer: Future[Answer] = Future()

    def ask() -> None:
        try:
            answer.set_result(transport.ask(request(url, seconds)))
        except BaseException as error:  # noqa: BLE001 - raised by the future
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer


def test_whatever_fails_in_the_loop_nobody_waits_for_ever(web):
    transport = Transport(LOOPBACK, certifi.where())
    slow = asked(transport, f"{web.url}/slow_body/")
    time.sleep(0.2)

    # More seconds than there are numbers for; of an address, no name is looked up first.
    absurd = asked(transport, "http://[::1]/", math.inf)
    for answer in (absurd, slow, asked(transport, web.url)):
        with pytest.raises(OverflowError):
            answer.result(5)


def test_where_libcurl_itself_fails_all_who_wait_hear_of_it(web, monkeypatch):
    class Failing(pycurl.CurlMulti):
        def remove_handle(self, _):
            raise pycurl.error("broken")

    monkeypatch.setattr(pycurl, "CurlMulti", Failing)
    transport = Transport(LOOPBACK, certifi.where())
    answers = [asked(transport, f"{web.url}/slow_body/?{i}") for i in range(3)]
    time.sleep(0.2)
    answers.append(asked(transport, f"{web.url}/fine/"))
    for answer in answers:
        with pytest.raises(pycurl.error, match="broken"):
            answer.result(5)


def test_who_asks_while_the_loop_ends_does_not_hang(web):
    class Slow(deque):
        def append(self, exchange):
            begun.set()
            time.sleep(0.3)
            super().append(exchange)

    begun = threading.Event()
    transport = Transport(LOOPBACK, certifi.where())
    transport._inbox = Slow()
    answer = asked(transport, f"{web.url}/slow_body/")
    begun.wait()
    transport.close()
    with pytest.raises(RuntimeError, match="closed"):
        answer.result(5)


def test_all_who_ask_at_once_are_answered(web):
    transport = Transport(LOOPBACK, certifi.where())
    urls = [f"{web.url}/fine/{i}" for i in range(200)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda url: transport.ask(request(url)).body, urls))
    transport.close()
    assert found == [BODY] * 200


def test_what_came_is_not_kept(web):
    transport = Transport(LOOPBACK, certifi.where())
    transport.ask(request(f"{web.url}/fine/"))
    transport.ask(request(f"{web.url}/fine/"))
    [handle] = transport._idle
    assert not [name for name in ("exchange", "_body") if hasattr(handle, name)]
    transport.close()
