"""The key on this machine: readable by its user only, or in the keyring; and renewed before it ends."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import typer

from gpudev import Client, GpuDevError
from gpudev.cli import keyring
from gpudev.cli.ending import CommandError, ExitCode
from gpudev.models import NewKey

try:
    import fcntl
except ImportError:  # Windows: two commands that renew at once get a key each, and both are good
    fcntl = None  # type: ignore[assignment]

_RENEWED_SHARE = 0.25
"""Of its life: what is left when a key is renewed."""
_WORTH_RENEWING = timedelta(minutes=1)
_RETRY_SECONDS = 5.0
_IN_KEYRING = b'{"in":"keyring"}'
"""Content of a file whose key is in the keyring."""


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    api_key: str
    key_prefix: str
    username: str
    obtained_at: datetime
    expires_at: datetime
    final: bool = False
    """The log-in session ends with this key."""

    def __repr__(self) -> str:
        return f"StoredKey({self.key_prefix}_...)"

    def left(self) -> timedelta:
        """Time to its end."""
        return self.expires_at - datetime.now(timezone.utc)

    def is_due(self) -> bool:
        """Whether it should be renewed now."""
        return not self.final and self.left() < _RENEWED_SHARE * (self.expires_at - self.obtained_at)


def config_folder() -> Path:
    """`GPUDEV_CONFIG_DIR`, else this platform's folder for settings."""
    return Path(os.environ.get("GPUDEV_CONFIG_DIR") or typer.get_app_dir("gpudev"))


def write_private(path: Path, content: bytes) -> None:
    """Replace a file that is for its user only, never leaving half of one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)  # with mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    Path(name).replace(path)


class KeyFile:
    """The one key of a config folder: in its file, or, when that says so, in the keyring."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "key.json"

    def load(self) -> StoredKey | None:
        """The key; None when nobody is logged in."""
        content = self._read()
        if content == _IN_KEYRING:
            content = (keyring.get(str(self._folder)) or "").encode()
        if content is None:
            return None
        try:
            return msgspec.json.decode(content, type=StoredKey)
        except msgspec.DecodeError:
            where = "The key in the keyring" if self.in_keyring else str(self.path)
            raise CommandError(
                f"{where} cannot be read", ExitCode.NOT_LOGGED_IN, "Log in again: `gpudev login`."
            ) from None

    @property
    def in_keyring(self) -> bool:
        """Whether it is there."""
        return self._read() == _IN_KEYRING

    def save(self, key: StoredKey) -> None:
        """Replace the key where it is, never leaving half of one."""
        content = msgspec.json.encode(key)
        if self.in_keyring:
            keyring.put(str(self._folder), content.decode())
        else:
            write_private(self.path, content)

    def move(self, *, to_keyring: bool) -> None:
        """Where keys are from now on; one that is elsewhere is removed.

        Raises:
            CommandError: There is no keyring.
        """
        if to_keyring == self.in_keyring:
            return
        if to_keyring:
            keyring.check()
            write_private(self.path, _IN_KEYRING)
        else:
            with contextlib.suppress(CommandError):  # it may be why
                keyring.remove(str(self._folder))
            self.path.unlink()

    def keep(self, url: str, new: NewKey, *, final: bool = False) -> StoredKey:
        """Save a key that has just been made."""
        stored = StoredKey(
            url=url,
            api_key=new.api_key,
            key_prefix=new.key_prefix,
            username=new.username,
            obtained_at=datetime.now(timezone.utc),
            expires_at=new.expires_at,
            final=final,
        )
        self.save(stored)
        return stored

    def remove(self) -> None:
        """Log out on this machine."""
        if self.in_keyring:
            keyring.remove(str(self._folder))
        self.path.unlink(missing_ok=True)

    def _read(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def current(self) -> StoredKey:
        """A key that is good, as far as is known here; renewed when it is due.

        Raises:
            CommandError: There is none, or it has ended.
        """
        key = self.load()
        if key is None:
            raise CommandError("You are not logged in", ExitCode.NOT_LOGGED_IN, "Log in: `gpudev login --url URL`.")
        if key.left() <= timedelta(0):
            at = key.expires_at.astimezone().strftime("%Y-%m-%d %H:%M")
            raise CommandError(f"Your key has ended at {at}", ExitCode.NOT_LOGGED_IN, "Log in again: `gpudev login`.")
        return self._renewed(key) if key.is_due() else key

    def _renewed(self, key: StoredKey) -> StoredKey:
        with self._lock():
            key = self.load() or key
            if not key.is_due():  # another command was faster
                return key
            try:
                with Client(key.url, key.api_key, retry_seconds=_RETRY_SECONDS) as client:
                    # one key for all tries: when its answer was lost, the next command gets it
                    new = client.rotate_key(idempotency_key=f"renew-{key.key_prefix}")
            except GpuDevError:
                return key  # it is good still; the next command tries again
            return self.keep(key.url, new, final=new.expires_at - key.expires_at < _WORTH_RENEWING)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with (self._folder / "lock").open("w") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def open_client(*, retry_seconds: float = 60.0) -> Client:
    """A client of whoever is logged in; ends with the process."""
    file = KeyFile(config_folder())
    return Client(file.current().url, lambda: file.current().api_key, retry_seconds=retry_seconds)
