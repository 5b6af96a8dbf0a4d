"""Keyed hashes: what is stored in place of keys, access key ids and addresses."""

import hashlib
import hmac
import ipaddress

_IPV6_PREFIX = 64
"""What one subscriber has; single addresses of it cost nothing."""


class KeyHasher:
    """HMAC-SHA-256 under the server's key: a stolen table tells nothing without it.

    Args:
        secret: 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def digest(self, key_hash: str) -> bytes:
        """What is stored of an API key whose SHA-256 this is, in lower-case hexadecimal."""
        return hmac.new(self._secret, key_hash.encode(), hashlib.sha256).digest()

    def bucket(self, kind: str, value: str) -> bytes:
        """Name of a log-in window, telling neither an address nor an access key id."""
        return hmac.new(self._secret, f"{kind}:{value}".encode(), hashlib.sha256).digest()


def counted_address(forwarded: str | None, peer: str) -> str:
    """The address that a log-in counts for; a whole /64 in IPv6.

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
