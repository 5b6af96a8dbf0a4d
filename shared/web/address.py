"""Whose request it is before there is a key: the client's address."""

import ipaddress
from contextlib import suppress
from functools import lru_cache
from typing import Any

from litestar.connection import ASGIConnection
from litestar.types import Scope

TRUSTED_PROXIES = "trusted_proxies"
"""Of the application's state: how many proxies stand before the service."""
_IPV6_PREFIX = 64
"""What one subscriber has; single addresses of it cost nothing."""


def client_address(request: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The address that a request is counted for."""
    return counted_address(*_told_by(request.scope), request.app.state[TRUSTED_PROXIES])


def counted_address(forwarded: str, peer: str, proxies: int) -> str:
    """The address that requests are counted for; a whole /64 in IPv6.

    Args:
        forwarded: X-Forwarded-For. Each proxy adds whom it was asked by, so the last ones are the proxies' own word, as
            many as there are proxies; what stands before them the client may have written.
        peer: Who connected to us.
        proxies: How many stand before us; with none the header means nothing.
    """
    address = _told_address(forwarded, peer, proxies)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return peer if address is None else str(address)


def seen_address(scope: Scope, proxies: int) -> str | None:
    """The address that a request came from, as the first of our proxies saw it; None: it is not known."""
    return _seen_address(*_told_by(scope), proxies)


@lru_cache(maxsize=1024)
def _seen_address(forwarded: str, peer: str, proxies: int) -> str | None:
    address = _told_address(forwarded, peer, proxies)
    return None if address is None else str(address)


def _told_by(scope: Scope) -> tuple[str, str]:
    """X-Forwarded-For, and who connected to us."""
    forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    client = scope["client"]
    return ",".join(forwarded), client[0] if client else ""


def _told_address(forwarded: str, peer: str, proxies: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    told = [entry.strip() for entry in forwarded.split(",")][-proxies:] if proxies else []
    for text in (*told, peer):
        with suppress(ValueError):
            return ipaddress.ip_address(_without_port(text))
    return None


def _without_port(text: str) -> str:
    """Some load balancers tell the port too: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
