"""A NATS user's .creds file, as `nsc` makes it: a JWT that says who they are, and the seed of the key that proves it.

The few lines of nats-py for this want a package that has no wheel; the signature is plain Ed25519.
"""

import base64
import binascii
import re
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

log = structlog.get_logger(__name__)

_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END USER NKEY SEED-+")
_USER = base64.b32decode("SUAAAAAA")[:2]
"""How a user's seed begins; 32 bytes follow, then the CRC16 of all these."""


class CredentialsError(Exception):
    """The file cannot be read, or is no user's credentials. The text has nothing of what is in it."""


class UserCredentials:
    """The user of one file. It is read at each connect, so that a renewed one needs no restart.

    Args:
        path: Of the file.

    Raises:
        CredentialsError: It is of no use now. Later the last one that was is used on.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._jwt, self._key = _read(self._path)

    def sign(self, nonce: str) -> bytes:
        """The server's challenge, signed, in Base64. nats-py asks for this first at a connect, then for the JWT."""
        try:
            self._jwt, self._key = _read(self._path)
        except CredentialsError as error:
            log.warning("broker_credentials_kept", error=str(error))
        return base64.b64encode(self._key.sign(nonce.encode()))

    def jwt(self) -> bytes:
        """Of the user by whose key was signed."""
        return self._jwt


def _read(path: Path) -> tuple[bytes, Ed25519PrivateKey]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsError(f"cannot be read: {type(error).__name__}") from error
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if jwt is None or seed is None:
        raise CredentialsError("has not both a user's JWT and their seed")
    return jwt[1].encode(), _key(seed[1])


def _key(seed: str) -> Ed25519PrivateKey:
    try:
        decoded = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error as error:
        raise CredentialsError("has a seed that is not one") from error
    checked, checksum = decoded[:34], decoded[34:]
    if not checked.startswith(_USER) or checksum != binascii.crc_hqx(checked, 0).to_bytes(2, "little"):
        raise CredentialsError("has a seed that is not a user's")
    return Ed25519PrivateKey.from_private_bytes(checked[2:])
