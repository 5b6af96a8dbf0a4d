"""Small programs to supervise, and a stack whose services and cluster are stand-ins."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest

from deploy.local.part import Part
from deploy.local.ports import free_ports
from deploy.local.state import RunningPart, StateDirectory
from shared.routes import SERVICES

Value = TypeVar("Value")
FAKE_STACK = Path(__file__).with_name("fake_stack.py")

FAKE_SERVICE = """
import json, os
from contextlib import asynccontextmanager
from shared.web.drain import Drain

class App:
    def __init__(self):
        self.state = {"drain": Drain()}

    @asynccontextmanager
    async def lifespan(self):
        yield

    async def __call__(self, scope, receive, send):
        seen = {"path": scope["path"], "environment": dict(os.environ), "pid": os.getpid()}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(seen).encode()})

create_app = App
"""


def eventually(look: Callable[[], Value], *, seconds: float = 60.0) -> Value:
    """What `look` returns once it is true; fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while not (value := look()):
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} s"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


@pytest.fixture
def make_part(tmp_path: Path) -> Callable[..., Part]:
    """Call with a name and Python source; the part is ready when its program has made the file `<name>.ready`."""

    def make(name: str, source: str, **options: Any) -> Part:
        mark = tmp_path / f"{name}.ready"
        return Part(
            name=name,
            argv=(sys.executable, "-c", source),
            log=tmp_path / f"{name}.log",
            cwd=tmp_path,
            ready=mark.exists,
            **options,
        )

    return make


@pytest.fixture(scope="session")
def fake_services() -> Iterator[Path]:
    """A folder with a package `services` of four that tell what they were given."""
    with tempfile.TemporaryDirectory(prefix="gpudev-services-") as folder:
        for name in SERVICES:
            package = Path(folder) / "services" / name
            package.mkdir(parents=True)
            (package / "__init__.py").touch()
            (package / "app.py").write_text(FAKE_SERVICE)
        (Path(folder) / "services" / "__init__.py").touch()
        (Path(folder) / "shared").symlink_to(Path(__file__).parents[2] / "shared")
        yield Path(folder)


class _Namespaces(BaseHTTPRequestHandler):
    created: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.created.append(body["metadata"]["name"])
        answer = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": body["metadata"]}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


class FakeCluster:
    """Someone's cluster that takes namespaces and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.namespaces: list[str] = []
        handler = type("Handler", (_Namespaces,), {"created": self.namespaces})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.kubeconfig = folder / "someones-kubeconfig"
        here = {"cluster": "here", "user": "me"}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": here}],
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"}}],
            "users": [{"name": "me", "user": {"token": "secret"}}],
        }
        self.kubeconfig.write_text(json.dumps(document))


@pytest.fixture(scope="session")
def fake_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    """Runs in this process."""
    cluster = FakeCluster(tmp_path_factory.mktemp("cluster"))
    thread = threading.Thread(target=cluster.server.serve_forever)
    thread.start()
    yield cluster
    cluster.server.shutdown()
    thread.join()
    cluster.server.server_close()


class StackProcess:
    """`make run` in a process of its own."""

    def __init__(self, services: Path, environment: dict[str, str]) -> None:
        self.services = services
        self.environment = environment
        self.state = StateDirectory(Path(environment["GPUDEV_STATE"]))
        self.port = int(environment["GPUDEV_PORT"])
        self.output = self.state.root.with_name("output")
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self, says_to: int | None = None) -> subprocess.Popen[bytes]:
        """Start it and return at once; what it says goes to an open file, None: to `output`."""
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(FAKE_STACK), str(self.services)],
                env={**os.environ, **self.environment},
                stdout=output if says_to is None else says_to,
                stderr=subprocess.STDOUT,
            )
        return self.process

    def start(self) -> None:
        """Start it and wait until it is ready."""
        process = self.launch()
        eventually(lambda: self.state.env.exists() or process.poll() is not None)
        assert process.poll() is None, self.output.read_text()

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal it; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def parts(self) -> dict[str, RunningPart]:
        """Name to process."""
        table = self.state.running()
        return {part.name: part for part in table.parts} if table else {}

    def exports(self) -> dict[str, str]:
        """What the env file sets, as a shell reads it."""
        return shell_reads(self.state.env.read_text())


def shell_reads(lines: str) -> dict[str, str]:
    """Variables that a shell has after these lines and had not before."""
    script = f"{lines}\nenv -0"
    answer = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True)
    pairs = (entry.partition("=") for entry in answer.stdout.split("\0") if entry)
    return {name: value for name, _, value in pairs if name not in {"PWD", "SHLVL", "_", "OLDPWD"}}


@pytest.fixture
def make_stack(fake_services: Path, fake_cluster: FakeCluster) -> Iterator[Callable[..., StackProcess]]:
    """Call with settings beyond the usual; nothing is started yet. All are ended after the test."""
    with _stacks(fake_services, fake_cluster) as make:
        yield make


@pytest.fixture(scope="module")
def stack(fake_services: Path, fake_cluster: FakeCluster) -> Iterator[StackProcess]:
    """One that runs, for tests that leave it whole."""
    with _stacks(fake_services, fake_cluster) as make:
        stack = make(GPUDEV_KEY_TTL_HOURS="1", GPUDEV_READ_SECONDS="2")
        stack.start()
        yield stack


@contextmanager
def _stacks(fake_services: Path, fake_cluster: FakeCluster) -> Iterator[Callable[..., StackProcess]]:
    made: list[StackProcess] = []
    with tempfile.TemporaryDirectory(prefix="gpudev-stack-", ignore_cleanup_errors=True) as folder:

        def make(**settings: str) -> StackProcess:
            usual = {
                "GPUDEV_STATE": f"{folder}/{len(made)}/state",
                "GPUDEV_PORT": str(free_ports(1)[0]),
                "GPUDEV_KUBECONFIG": str(fake_cluster.kubeconfig),
            }
            Path(folder, str(len(made))).mkdir()
            made.append(StackProcess(fake_services, {**usual, **settings}))
            return made[-1]

        yield make
        for stack in made:
            if stack.process is not None and stack.process.poll() is None:
                stack.process.terminate()
                stack.process.wait(60)
