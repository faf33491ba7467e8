"""Which IP addresses are on the public internet. Imports nothing: the guarded child of the workers
loads this for every page that it fetches."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address

# IPv6 addresses that stand for an IPv4 address.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV4_MAPPED = ipaddress.ip_network("::ffff:0:0/96")


def is_public_address(address: str) -> bool:
    """Whether an IP address (text, an IPv6 zone allowed) is reachable on the public internet.

    False for loopback, private, link-local, shared, reserved, multicast and unspecified ones,
    for IPv6 forms that carry such an IPv4 address, and for what is no address at all.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(
        ip.is_global and not ip.is_multicast and not ip.is_reserved and not ip.is_unspecified
        for ip in _reached(found)
    )


def _reached(ip: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """The addresses that a connection to ``ip`` may end at."""
    if isinstance(ip, IPv4Address):
        return [ip]
    if ip in _NAT64 or ip in _IPV4_MAPPED:
        return [IPv4Address(ip.packed[-4:])]
    return [ip, *([ip.sixtofour] if ip.sixtofour else ()), *(ip.teredo or ())]
