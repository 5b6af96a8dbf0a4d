"""API keys: `gpudev_<id>_<secret><checksum>`, recognisable, and checkable without a look-up.

The form follows GitHub's token format (https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/):
a prefix that secret scanners find, and a CRC-32 that catches typing errors before any database is asked.
"""

import hashlib
import re
import secrets
import string
import zlib

import msgspec

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH = 10
_SECRET_LENGTH = 32
"""32 characters of 62 are 190 bits."""
_CHECKSUM_LENGTH = 6
_FORM = re.compile(rf"gpudev_([0-9A-Za-z]{{{_ID_LENGTH}}})_([0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}})")

_PREFIX = re.compile(rf"gpudev_([0-9A-Za-z]{{{_ID_LENGTH}}})")


class ApiKey(msgspec.Struct, frozen=True):
    key_id: str
    """Public part, unique."""
    text: str
    """The whole key; never stored, never logged."""

    @property
    def prefix(self) -> str:
        """Recognisable beginning, safe to show."""
        return key_prefix(self.key_id)

    @property
    def hash(self) -> str:
        """Lower-case hexadecimal SHA-256 of the whole key: all that leaves the service that received it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __repr__(self) -> str:
        return f"ApiKey({self.prefix}_...)"


def new_api_key() -> ApiKey:
    """A random key."""
    body = f"gpudev_{_random_text(_ID_LENGTH)}_{_random_text(_SECRET_LENGTH)}"
    return ApiKey(body[7 : 7 + _ID_LENGTH], body + _checksum(body))


def parse_api_key(text: str) -> ApiKey | None:
    """The key in `text`; None when it has not the form of one or its checksum is wrong."""
    match = _FORM.fullmatch(text)
    if match is None or _checksum(text[:-_CHECKSUM_LENGTH]) != text[-_CHECKSUM_LENGTH:]:
        return None
    return ApiKey(match[1], text)


def key_prefix(key_id: str) -> str:
    """Recognisable beginning of the key with this id."""
    return f"gpudev_{key_id}"


def parse_key_prefix(text: str) -> str | None:
    """The id of the key with this beginning; None when no key begins so."""
    match = _PREFIX.fullmatch(text)
    return match[1] if match else None


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
