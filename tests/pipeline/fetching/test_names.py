import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.fetching import names
from pipeline.fetching.names import Names, resolve


def later() -> float:
    return time.monotonic() + 5


def answering(monkeypatch, *addresses, seconds=0.0):
    asked = []

    def getaddrinfo(host, port, **_):
        asked.append(host)
        time.sleep(seconds)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (a, 0, 0, 0)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_reserved_names_are_not_left_to_the_resolver(monkeypatch):
    asked = answering(monkeypatch, "192.0.2.1")
    for name in ("localhost", "a.b.localhost", "LOCALHOST.", "a.LocalHost"):
        assert [str(a) for a in Names().look_up(name, later())] == ["127.0.0.1"]
    for name in ("invalid", "a.invalid", "A.INVALID."):
        with pytest.raises(socket.gaierror):
            Names().look_up(name, later())
    assert asked == []


def test_a_name_that_no_resolver_takes_does_not_resolve():
    for name in ("a" * 64 + ".com", "a..com", "\ud800.com"):
        with pytest.raises(socket.gaierror):
            resolve(name)


def test_addresses_come_once_each_in_the_resolvers_order(monkeypatch):
    answering(monkeypatch, "2001:db8::1", "192.0.2.1", "192.0.2.1", "fe80::1%eth0")
    found = Names().look_up("h.example", later())
    assert [str(a) for a in found] == ["2001:db8::1", "192.0.2.1", "fe80::1"]


def test_a_name_is_looked_up_once_by_many_threads(monkeypatch):
    asked = answering(monkeypatch, "192.0.2.1", seconds=0.1)
    known = Names()
    with ThreadPoolExecutor(8) as pool:
        spellings = ["H.example", "h.example."] * 8
        found = list(pool.map(lambda name: known.look_up(name, later()), spellings))
    assert asked == ["h.example"]
    assert found == [found[0]] * 16


def test_a_name_that_failed_is_looked_up_again_after_a_while(monkeypatch):
    asked = answering(monkeypatch)
    known = Names()
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            known.look_up("h.example", later())
    assert len(asked) == 1
    monkeypatch.setattr(names, "FAILURE_KEPT_S", 0)
    with pytest.raises(socket.gaierror):
        known.look_up("h.example", later())
    assert len(asked) == 2


def test_many_names_that_hang_do_not_hold_up_one_that_does_not(monkeypatch):
    answering(monkeypatch, "192.0.2.1", seconds=1)
    known = Names()
    with ThreadPoolExecutor(100) as pool:
        for i in range(100):
            pool.submit(known.look_up, f"slow{i}.example", later())
        time.sleep(0.2)
        answering(monkeypatch, "192.0.2.2")
        begun = time.monotonic()
        assert str(known.look_up("quick.example", later())[0]) == "192.0.2.2"
        assert time.monotonic() - begun < 0.5


def test_a_name_nobody_waits_for_does_not_keep_the_process():
    code = """
import socket, threading, time
from pipeline.fetching.names import Names
socket.getaddrinfo = lambda *_, **__: time.sleep(20)
try:
    Names().look_up("slow.example", time.monotonic() + 0.1)
except TimeoutError:
    print("gave up")
"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "gave up\n"
    assert time.monotonic() - begun < 10


def test_where_too_many_names_hang_the_next_is_not_begun(monkeypatch):
    monkeypatch.setattr(names, "LOOK_UPS", 1)
    asked = answering(monkeypatch, "192.0.2.1", seconds=0.3)
    known = Names()
    for name in ("slow.example", "next.example"):
        with pytest.raises(TimeoutError):
            known.look_up(name, time.monotonic() + 0.05)
    assert str(known.look_up("next.example", later())[0]) == "192.0.2.1"
    assert asked == ["slow.example", "next.example"]


def test_only_so_many_names_are_kept(monkeypatch):
    asked = answering(monkeypatch, "192.0.2.1")
    monkeypatch.setattr(names, "KEPT_NAMES", 2)
    known = Names()
    for name in ("a", "b", "c", "a"):
        known.look_up(f"{name}.example", later())
    assert len(asked) == 4
