"""A NATS whose accounts and users are JWTs signed by an operator, as `nsc` makes them, with nothing but Ed25519."""

import base64
import binascii
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_KINDS = {"operator": "O", "account": "A", "user": "U"}
_UNLIMITED = -1


class Nkey:
    """A key of one kind, with the texts that NATS knows it by."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.key = Ed25519PrivateKey.generate()
        raw = serialization.Encoding.Raw
        public = self.key.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
        private = self.key.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        letter = _KINDS[kind]
        self.public = _text(base64.b32decode(f"{letter}AAAAAAA")[:1] + public)
        self.seed = _text(base64.b32decode(f"S{letter}AAAAAA")[:2] + private)

    def jwt(self, subject: "Nkey", name: str, nats: dict[str, Any], *, seconds: int | None = None) -> str:
        """What this key says about the subject, for so long; None: for ever."""
        claims = {
            "iat": int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": subject.public,
            "nats": {"type": subject.kind, "version": 2, **nats},
            **({} if seconds is None else {"exp": int(time.time()) + seconds}),
        }
        claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
        said = ".".join(_part(json.dumps(one).encode()) for one in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims))
        return f"{said}.{_part(self.key.sign(said.encode()))}"


class NatsAccounts:
    """An operator with one account, which has JetStream, and the account of the system."""

    def __init__(self) -> None:
        self._operator, self._account, self._system = Nkey("operator"), Nkey("account"), Nkey("account")

    def configuration(self) -> str:
        """What the server's has of it."""
        jetstream = {"mem_storage": _UNLIMITED, "disk_storage": _UNLIMITED, "streams": 10, "consumer": 100}
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), _UNLIMITED)
        preload = {
            key.public: self._operator.jwt(key, name, {"limits": {"wildcards": True, **limits, **more}})
            for key, name, more in ((self._account, "SERVICES", jetstream), (self._system, "SYS", {}))
        }
        operator = self._operator.jwt(self._operator, "gpudev", {"system_account": self._system.public})
        values = {"operator": operator, "system_account": self._system.public, "resolver_preload": preload}
        return "".join(["resolver: MEMORY\n", *(f"{name}: {json.dumps(value)}\n" for name, value in values.items())])

    def user(self, name: str, publish: list[str], subscribe: list[str], *, seconds: int | None = None) -> str:
        """A .creds file of a new key, which is good for so long; None: for ever."""
        user = Nkey("user")
        limits = dict.fromkeys(("subs", "data", "payload"), _UNLIMITED)
        permissions = {"pub": {"allow": publish}, "sub": {"allow": subscribe}, "resp": {"max": 1, "ttl": 30 * 10**9}}
        jwt = self._account.jwt(user, name, {**permissions, **limits}, seconds=seconds)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )


def write(path: Path, text: str) -> Path:
    """A file that is private, and is replaced at once."""
    new = path.with_name(f".{path.name}")
    new.touch(mode=0o600)
    new.write_text(text)
    return new.replace(path)


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _text(data: bytes) -> str:
    """Base 32 with a checksum, as nkeys are written."""
    return base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")
