import ipaddress

import pytest

from pipeline.fetching.addresses import is_public, may_connect


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
