"""A keyring in a file, for machines without one: PYTHON_KEYRING_BACKEND=tests.client.file_keyring.FileKeyring."""

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError


class FileKeyring(KeyringBackend):
    """Keeps what it is given in the file of KEYRING_FILE."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        return self._read().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._write({**self._read(), f"{service} {username}": password})

    def delete_password(self, service: str, username: str) -> None:
        held = self._read()
        if held.pop(f"{service} {username}", None) is None:
            raise PasswordDeleteError("there is none")
        self._write(held)

    def _read(self) -> dict[str, str]:
        path = Path(os.environ["KEYRING_FILE"])
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _write(self, held: dict[str, str]) -> None:
        Path(os.environ["KEYRING_FILE"]).write_text(json.dumps(held))
