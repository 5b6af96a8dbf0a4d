"""The jobs service as it was before its tables were split, on its own code: what runs beside us during an upgrade."""

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from deploy.local.ports import free_ports

_COMMIT = "27061cf"
_ROOT = Path(__file__).parents[2]
_APPLICATION = """
import json, os
from services.jobs.app import create_app as create
from shared.contracts.auth import Identity
import msgspec
KNOWN = msgspec.json.decode(os.environ["KNOWN_KEYS"], type=dict[str, Identity])
async def verify(key_hash):
    return KNOWN[key_hash]
def create_app():
    return create(None, verify)
"""


def unpack(directory: Path) -> Path:
    """The code of then; the test is left out where the repository's history is not at hand."""
    found = subprocess.run(
        ["git", "-C", str(_ROOT), "archive", "--format=tar", _COMMIT, "services", "shared"],
        check=False,
        capture_output=True,
    )
    if found.returncode:
        pytest.skip(f"{_COMMIT} is not in this clone: {found.stderr.decode()[:200]}")
    archive = directory / "former.tar"
    archive.write_bytes(found.stdout)
    with tarfile.open(archive) as opened:
        opened.extractall(directory, filter="data")
    (directory / "former_application.py").write_text(_APPLICATION)
    return directory


def environment(settings: msgspec.Struct) -> dict[str, str]:
    """Settings as the environment variables that give them."""
    values = {name: value for name, value in msgspec.structs.asdict(settings).items() if value is not None}
    given = {f"GPUDEV_{name.upper()}": str(value) for name, value in values.items()}
    return {**{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}, **given}


def migrate(code: Path, dsn: str) -> None:
    """Bring the jobs service's schema to where it was then."""
    command = [sys.executable, "-m", "shared.database.migrate", "jobs"]
    subprocess.run(command, cwd=code, env={"GPUDEV_DATABASE_URL": dsn, "PATH": os.environ["PATH"]}, check=True)


@contextmanager
def replica(code: Path, settings: msgspec.Struct, known_keys: Mapping[str, object]) -> Iterator[str]:
    """A replica of then, in a process of its own; its address."""
    (port,) = free_ports(1)
    command = [
        sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "former_application:create_app",
        "--host", "127.0.0.1", "--port", str(port), "--no-ws", "--log-level", "warning",
    ]  # fmt: skip
    keys = json.loads(msgspec.json.encode(known_keys))
    process = subprocess.Popen(command, cwd=code, env={**environment(settings), "KNOWN_KEYS": json.dumps(keys)})
    address = f"http://127.0.0.1:{port}"
    try:
        _await_answer(address, process)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_answer(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while True:
        assert process.poll() is None, "the former release does not start"
        try:
            httpx.get(f"{address}/v1/jobs", trust_env=False, timeout=2)
        except httpx.HTTPError:
            assert time.monotonic() < deadline, "the former release does not answer"
            time.sleep(0.1)
        else:
            return
