"""Keyed hashes: what is stored in place of keys, access key ids and addresses."""

import hashlib
import hmac


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

    def console_code(self, code: str) -> bytes:
        """What is stored of a one-time code of the console."""
        return hmac.new(self._secret, f"console_code:{code}".encode(), hashlib.sha256).digest()

    def bucket(self, kind: str, value: str) -> bytes:
        """Name of a log-in window, telling neither an address nor an access key id."""
        return hmac.new(self._secret, f"{kind}:{value}".encode(), hashlib.sha256).digest()
