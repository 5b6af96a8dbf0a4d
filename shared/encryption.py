"""Secrets at rest: AES-256-GCM with key rotation; each is bound to the row that it is for.

The binding is the associated data of the encryption: who can write to the database cannot put one row's secret into
another. What older versions stored (Fernet, unbound) is still read, and never written.
"""

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION = b"\x01"
"""First byte; a Fernet token is Base64 text and begins with `g`."""
_NONCE_BYTES = 12
"""NIST SP 800-38D section 8.2.2."""


class UndecryptableError(Exception):
    """The text was not encrypted with any of the keys, or for another row."""


class Cipher:
    """Encrypts with the first key, decrypts with any.

    Args:
        secret_keys: Base64 keys of 32 bytes, joined by commas, newest first.

    Raises:
        ValueError: A key is not 32 bytes in Base64.
    """

    def __init__(self, secret_keys: str) -> None:
        keys = [base64.b64decode(key, altchars=b"-_") for key in secret_keys.split(",")]
        self._fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])
        self._ciphers = [AESGCM(_derived(key)) for key in keys]

    def encrypt(self, clear: bytes, *, row: str) -> bytes:
        """Encrypted bytes, safe to store.

        Args:
            clear: The secret.
            row: Table, column and primary key of where it is stored; no two places have the same.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._ciphers[0].encrypt(nonce, clear, row.encode())

    def decrypt(self, token: bytes, *, row: str) -> bytes:
        """Clear text of what was encrypted for this row.

        Raises:
            UndecryptableError: No key fits, it was changed, or it is another row's.
        """
        if not token.startswith(_VERSION):
            return self._decrypt_fernet(token)
        nonce, sealed = token[1 : 1 + _NONCE_BYTES], token[1 + _NONCE_BYTES :]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, sealed, row.encode())
            except (InvalidTag, ValueError):
                continue
        raise UndecryptableError("stored secret cannot be decrypted for its row with the configured keys")

    def _decrypt_fernet(self, token: bytes) -> bytes:
        try:
            return self._fernet.decrypt(token)
        except InvalidToken as error:
            raise UndecryptableError("stored secret cannot be decrypted with the configured keys") from error


def _derived(key: bytes) -> bytes:
    """A key of its own for each use of one secret."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"gpudev secrets at rest, AES-256-GCM").derive(key)
