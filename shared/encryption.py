"""Secrets at rest: authenticated encryption with key rotation (Fernet, https://github.com/fernet/spec)."""

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class UndecryptableError(Exception):
    """The text was not encrypted with any of the keys."""


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

    def encrypt(self, clear: bytes) -> bytes:
        """Encrypted text, safe to store."""
        return self._fernet.encrypt(clear)

    def decrypt(self, token: bytes) -> bytes:
        """Clear text.

        Raises:
            UndecryptableError: No key fits, or the text was changed.
        """
        try:
            return self._fernet.decrypt(token)
        except InvalidToken as error:
            raise UndecryptableError("stored secret cannot be decrypted with the configured keys") from error
