"""Which addresses may be connected to: public ones only, unless a range is opened on purpose."""

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PROTOCOL_ASSIGNMENTS = ipaddress.IPv4Network("192.0.0.0/24")


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
