import ipaddress
import socket
import time

import pytest

from pipeline.pictures.addresses import AddressRefused, connect, is_public, may_connect, resolve


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
        "2001:0:7f00:1::",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff0e::1",
        "4000::1",
    ],
)
def test_special_addresses_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "93.184.216.34",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::",
    ],
)
def test_ordinary_addresses_are_public(address):
    assert is_public(ipaddress.ip_address(address))


def test_an_opened_range_opens_nothing_else():
    allowed = [ipaddress.ip_network("10.0.0.0/8")]
    for address, expected in (("10.9.9.9", True), ("::ffff:10.9.9.9", True), ("127.0.0.1", False)):
        assert may_connect(ipaddress.ip_address(address), allowed) is expected


def test_reserved_names_are_not_left_to_the_resolver(monkeypatch):
    def asked(*_, **__):
        raise AssertionError("the resolver was asked")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    for name in ("localhost", "a.b.localhost", "LOCALHOST.", "a.LocalHost"):
        assert [str(address) for address in resolve(name, 80)] == ["127.0.0.1"]
    for name in ("invalid", "a.invalid", "A.INVALID."):
        with pytest.raises(socket.gaierror):
            resolve(name, 80)


def test_a_name_that_no_resolver_takes_does_not_resolve():
    for name in ("a" * 64 + ".com", "a..com", "\ud800.com"):
        with pytest.raises(socket.gaierror):
            resolve(name, 80)


def loopback(*hosts: int) -> list:
    return [ipaddress.ip_address(f"127.0.0.{host}") for host in hosts]


OPENED = [ipaddress.ip_network("127.0.0.0/8")]


def test_the_next_address_is_tried_where_one_does_not_answer():
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        deadline = time.monotonic() + 5
        with connect(loopback(1, 2), port, allowed=OPENED, deadline=deadline) as connection:
            assert connection.getpeername() == ("127.0.0.2", port)


def test_what_may_not_be_used_is_not_connected_to():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        port = server.getsockname()[1]
        with pytest.raises(AddressRefused, match=r"127\.0\.0\.1"):
            connect(loopback(1, 2), port, allowed=[], deadline=time.monotonic() + 5)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_deadline_that_has_passed_connects_to_nobody():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(TimeoutError):
            connect(loopback(1), port, allowed=OPENED, deadline=time.monotonic() - 1)
