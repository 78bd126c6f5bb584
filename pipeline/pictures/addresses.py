"""Which machine a host name may lead to: public addresses only, unless a range is opened on purpose."""

import ipaddress
import math
import socket
import ssl
import time
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_ADDRESSES = 4
"""Addresses of one host that are tried in turn."""

_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PROTOCOL_ASSIGNMENTS = ipaddress.IPv4Network("192.0.0.0/24")


class AddressRefused(Exception):
    """None of a host's addresses is public."""


class DeadlineSocket(socket.socket):
    """A TCP socket whose every read ends at `deadline`, however the bytes drip.

    Attributes:
        deadline: on the clock of `time.monotonic`.
    """

    deadline = math.inf

    def recv_into(self, *args, **kwargs) -> int:  # type: ignore[no-untyped-def]
        """Receive as a socket does, but no longer than to the deadline."""
        self.settimeout(seconds_left(self.deadline))
        return super().recv_into(*args, **kwargs)


class DeadlineTLSSocket(ssl.SSLSocket):
    """The same over TLS."""

    deadline = math.inf

    def recv_into(self, *args, **kwargs) -> int:  # type: ignore[no-untyped-def]
        """Receive as a socket does, but no longer than to the deadline."""
        self.settimeout(seconds_left(self.deadline))
        return super().recv_into(*args, **kwargs)


def seconds_left(deadline: float) -> float:
    """Return the time until `deadline`.

    Raises:
        TimeoutError: if it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def is_public(address: Address) -> bool:
    """Return whether `address` is one of the open Internet, also where it wraps an IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        special = address.is_multicast or address.is_reserved or address in _PROTOCOL_ASSIGNMENTS
        return address.is_global and not special
    wrapped = _wrapped_v4(address)
    if wrapped is not None:
        return is_public(wrapped)
    return address in _UNICAST_V6 and address.is_global


def _wrapped_v4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def may_connect(address: Address, allowed: Sequence[Network]) -> bool:
    """Return whether `address` is public or inside one of the `allowed` ranges."""
    wrapped = _wrapped_v4(address) if isinstance(address, ipaddress.IPv6Address) else None
    return is_public(address) or any((wrapped or address) in network for network in allowed)


def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of `host`, in the resolver's order.

    Names below `.localhost` and `.invalid` are decided here, as RFC 6761 wants and glibc does not.

    Raises:
        OSError: if the name has none. The resolver's own time limits apply.
    """
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return [ipaddress.IPv4Address("127.0.0.1")]
    if name == "invalid" or name.endswith(".invalid"):
        raise socket.gaierror(socket.EAI_NONAME, "reserved name")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
    names = dict.fromkeys(str(info[4][0]).partition("%")[0] for info in found)
    return [ipaddress.ip_address(name) for name in names]


def connect(
    addresses: Sequence[Address], port: int, *, allowed: Sequence[Network], deadline: float
) -> DeadlineSocket:
    """Connect to the first of `addresses` that may be used and answers.

    The check and the connection are of the same address, so that a name which resolves otherwise
    the second time gains nothing.

    Raises:
        AddressRefused: if none may be used; names the first.
        OSError: if none answers; the last one's error.
    """
    usable = [address for address in addresses if may_connect(address, allowed)][:MAX_ADDRESSES]
    if not usable:
        raise AddressRefused(str(addresses[0]))
    for tried, address in enumerate(usable, start=1):
        try:
            return _connect_one(address, port, deadline=deadline, share=len(usable) - tried + 1)
        except OSError as error:
            last = error
    raise last


def _connect_one(address: Address, port: int, *, deadline: float, share: int) -> DeadlineSocket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connection = DeadlineSocket(family, socket.SOCK_STREAM)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(seconds_left(deadline) / share)
        connection.connect((str(address), port))
        connection.settimeout(seconds_left(deadline))
    except BaseException:
        connection.close()
        raise
    connection.deadline = deadline
    return connection
