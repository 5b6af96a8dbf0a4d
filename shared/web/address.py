"""Whose request it is before there is a key: the client's address."""

import ipaddress
from typing import Any

from litestar.connection import ASGIConnection

_IPV6_PREFIX = 64
"""What one subscriber has; single addresses of it cost nothing."""


def client_address(request: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The address that a request is counted for."""
    peer = request.client.host if request.client is not None else ""
    forwarded = request.headers.getall("x-forwarded-for", [])
    return counted_address(forwarded[-1] if forwarded else None, peer)


def counted_address(forwarded: str | None, peer: str) -> str:
    """The address that requests are counted for; a whole /64 in IPv6.

    Args:
        forwarded: X-Forwarded-For. Only its last entry is the ingress's own word; what stands before it the client
            may have written.
        peer: Who connected to us.
    """
    for text in ((forwarded or "").rpartition(",")[2].strip(), peer):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if isinstance(address, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
        return str(address)
    return peer
