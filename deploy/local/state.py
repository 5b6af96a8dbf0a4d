"""The state folder: who may read it, the secrets made once, the lock of the stack that uses it."""

import base64
import fcntl
import hmac
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TextIO

import msgspec

from shared.routes import SERVICES


class StateInUseError(Exception):
    """Another stack runs on this state folder; the text says which process."""


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """Made at the first start and kept, as what is encrypted and signed with them is kept too."""

    postgres: str
    """Password of the superuser."""
    databases: dict[str, str]
    """Password of each service's role."""
    broker_services: str
    broker_tools: str
    encryption_keys: dict[str, str]
    """Key of each service for what it encrypts at rest: base64 of 32 bytes."""
    key_hash_key: str
    """Key under which auth hashes API keys: base64 of 32 bytes."""

    def internal_token(self) -> str:
        """What the services show each other: derived, so that it needs no place of its own."""
        return hmac.new(self.key_hash_key.encode(), b"internal token", "sha256").hexdigest()


class RunningPart(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    pid: int
    """Leader of the part's process group."""
    started: str
    """Start time as the kernel tells it: with the pid it names one process for ever."""
    port: int | None
    metrics_port: int | None = None
    """Of a service, http://127.0.0.1:<port>/metrics for Prometheus."""
    log: str


class RunningStack(msgspec.Struct, frozen=True, kw_only=True):
    """What `stack.json` says while a stack runs, and what it left there if it was killed."""

    pid: int
    """Of the supervisor."""
    url: str
    """Of the ingress."""
    kubeconfig: str
    """Of the cluster that is used."""
    parts: list[RunningPart]


class StateDirectory:
    """Paths below one state folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.env = self.root / "env"
        self.stack = self.root / "stack.json"
        self.logs = self.root / "log"
        self.postgres = self.root / "postgres"
        self.broker = self.root / "nats"
        self.ingress = self.root / "traefik"
        self.cloud = self.root / "moto"
        self.cluster = self.root / "cluster"
        self.disks = self.cluster / "disks"
        self.github = self.root / "github"
        self.ssh_config = self.root / "ssh" / "config"
        self.command = self.root / "bin" / "gpudev"
        self.tools_image = self.root / "tools"
        self.kubeconfig = self.root / "kubeconfig"
        self._secrets = self.root / "secrets.json"

    def create(self) -> None:
        """Make the folder; others may pass through it, as postgres must when we are root, but not look."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711 if os.geteuid() == 0 else 0o700)

    def put_logs_away(self) -> None:
        """Begin with empty logs; the last run's are kept in `log.old`."""
        old = self.root / "log.old"
        shutil.rmtree(old, ignore_errors=True)
        if self.logs.exists():
            self.logs.rename(old)

    def lock(self) -> TextIO:
        """Hold the folder until the file that is returned is closed or we die, however that happens.

        Raises:
            StateInUseError: somebody else holds it.
        """
        file = (self.root / "run.lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise StateInUseError(
                f"A stack runs on {self.root} already (process {owner}). Stop it, or set GPUDEV_STATE."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        return file

    def secrets(self) -> Secrets:
        """The secrets of this folder, made at the first call."""
        if not self._secrets.exists():
            write_private(self._secrets, msgspec.json.format(msgspec.json.encode(_new_secrets())).decode())
        return msgspec.json.decode(self._secrets.read_bytes(), type=Secrets)

    def running(self) -> RunningStack | None:
        """What `stack.json` says; None when there is none or it cannot be read."""
        try:
            return msgspec.json.decode(self.stack.read_bytes(), type=RunningStack)
        except (OSError, msgspec.DecodeError):
            return None


def write_private(path: Path, text: str | bytes) -> None:
    """Replace the file at once and durably; only we may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode() if isinstance(text, str) else text
    # mkstemp makes the file with mode 0600: it is at no moment open to others.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _new_secrets() -> Secrets:
    return Secrets(
        postgres=new_password(),
        databases={name: new_password() for name in SERVICES},
        broker_services=new_password(),
        broker_tools=new_password(),
        encryption_keys={name: _new_key() for name in SERVICES},
        key_hash_key=_new_key(),
    )


def new_password() -> str:
    """160 random bits, safe in a URL, in SQL and in a shell."""
    return secrets.token_hex(20)


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
