"""SSH public keys out of text that nobody vouches for.

Formats: the authorized_keys file (https://man.openbsd.org/sshd#AUTHORIZED_KEYS_FILE_FORMAT), RFC 4253 section 6.6, and
https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.u2f for the sk- types.
"""

import base64
import binascii
import re

MAX_KEYS = 32
"""Of one user."""
_MAX_LINE = 8192
_FIELDS = {
    "ssh-rsa": 2,
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
"""Key types, and how many fields follow the type's name in a key."""
_LINE = re.compile(
    rf"[ \t]*({'|'.join(re.escape(kind) for kind in _FIELDS)})[ \t]+([A-Za-z0-9+/]+={{0,2}})(?:[ \t][^\r\n]*)?\r?"
)


def read_keys(text: bytes) -> list[str]:
    """The keys in a page of keys, each `type base64` and nothing else, in their order, at most MAX_KEYS, none twice.

    Comments are dropped. A line that does not begin with a type, such as one with options, is no key: an option
    narrows what the key may do, so the key without it would open more than its owner meant.
    """
    keys: dict[str, None] = {}
    for line in text.decode("ascii", "replace").split("\n"):
        key = _read_line(line)
        if key is not None:
            keys[key] = None
    return list(keys)[:MAX_KEYS]


def authorized_keys(keys: list[str]) -> str:
    """The file for these keys."""
    return "".join(f"{key}\n" for key in keys)


def _read_line(line: str) -> str | None:
    found = _LINE.fullmatch(line) if len(line) <= _MAX_LINE else None
    if found is None:
        return None
    kind, encoded = found[1], found[2]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return None
    return f"{kind} {encoded}" if _is_key(kind, blob) else None


def _is_key(kind: str, blob: bytes) -> bool:
    """A key is its type's name and so many fields, each with its length before it, and nothing after them."""
    fields = []
    while blob:
        length = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + length or length == 0:
            return False
        fields.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return len(fields) == 1 + _FIELDS[kind] and fields[0] == kind.encode()
