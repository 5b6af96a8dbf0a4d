"""The stack as a user starts it, and a user of it."""

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from kubernetes import client, config

from deploy.local.aws import ACCOUNT, DEMO_ROLE
from deploy.local.ports import free_ports
from deploy.local.state import RunningPart, RunningStack, StateDirectory
from shared.contracts.events import STREAM
from tests.support.hanging import hung
from tests.support.harness import connected, nats_client

ROOT = Path(__file__).parents[2]
SERVICES = ("auth", "jobs", "disks", "capacity")
OPERATORS = f"arn:aws:sts::{ACCOUNT}:assumed-role/{DEMO_ROLE}/operator"
"""A value of GPUDEV_OPERATORS: the demo user of that name."""


class LocalStack:
    """`make run` in a state folder of its own, on a free port.

    Args:
        state: Folder; kept between starts.
        checkout: Whose code runs.
        settings: More GPUDEV_ variables.
    """

    def __init__(self, state: Path, *, checkout: Path = ROOT, **settings: str) -> None:
        self.state = StateDirectory(state)
        self._checkout = checkout
        self.port = free_ports(1)[0]
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.output = state / "output.txt"
        self.secrets: set[str] = set()
        """Everything that no log may hold."""

    @property
    def url(self) -> str:
        """Of the ingress."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What `make run` is given."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GPUDEV_")}
        return {**plain, "GPUDEV_STATE": str(self.state.root), "GPUDEV_PORT": str(self.port), **self._settings}

    def start(self, *, seconds: float = 180.0) -> float:
        """Start it; the seconds until it was ready."""
        self.state.create()
        began = time.monotonic()
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local", "run"],
                cwd=self._checkout,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while not self.state.env.exists():
            assert self._process.poll() is None, f"the stack ended:\n{self.output.read_text()}"
            assert time.monotonic() - began < seconds, f"the stack is not ready:\n{self.output.read_text()}"
            time.sleep(0.05)
        self.secrets |= {self.exports()["AWS_SECRET_ACCESS_KEY"], self.exports()["AWS_SESSION_TOKEN"]}
        return time.monotonic() - began

    def stop(self, signal_number: int = signal.SIGINT) -> None:
        """Ctrl-C; returns when it has ended."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.kill(self._process.pid, signal_number)
        self._process.wait(90)
        self._process = None

    def exports(self, text: str | None = None) -> dict[str, str]:
        """Variables of the env file (None), or of such lines."""
        lines = self.state.env.read_text() if text is None else text
        found = re.findall(r"^export (\w+)=(.*)$", lines, re.MULTILINE)
        return {name: "".join(shlex.split(value)) for name, value in found}

    def identity(self, name: str) -> dict[str, str]:
        """`make identity NAME=name`."""
        text = subprocess.check_output(
            [sys.executable, "-m", "deploy.local", "identity", name],
            cwd=self._checkout,
            env=self.environment,
            text=True,
        )
        return self.exports(text)

    def parts(self) -> dict[str, RunningPart]:
        """Running processes by name."""
        table = self.state.running()
        assert isinstance(table, RunningStack), "no stack runs"
        return {part.name: part for part in table.parts}

    def kill(self, name: str) -> None:
        """`kill -9` of one process."""
        os.kill(self.parts()[name].pid, signal.SIGKILL)

    def dsn(self, service: str) -> str:
        """DSN of a service's own role."""
        password = self.state.secrets().databases[service]
        return f"postgresql://gpudev_{service}:{password}@127.0.0.1:{self.parts()['postgres'].port}/gpudev"

    async def execute(self, service: str, statement: str, *arguments: Any) -> None:
        """Run SQL as a service's role."""
        async with connected(self.dsn(service)) as connection:
            await connection.execute(statement, *arguments)

    async def admin(self, service: str, *arguments: str) -> str:
        """`gpudev-admin` with the settings of a replica of the service; what it says."""
        program = [sys.executable, "-m", "shared.admin", service, *arguments]
        process = self.parts()[f"{service}-1"].pid

        def say() -> str:
            variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
            environment = dict(os.fsdecode(one).split("=", 1) for one in variables if one)
            return subprocess.check_output(program, cwd=self._checkout, env=environment, text=True)

        return (await asyncio.to_thread(say)).strip()

    async def user_id(self, username: str) -> str:
        """Id of the user of a name, as operators find it."""
        return (await self.admin("auth", "find-user", username)).split()[0]

    def cluster_api(self) -> client.CoreV1Api:
        """Kubernetes, as whoever sources the env file."""
        return client.CoreV1Api(config.new_client_from_config(self.exports()["KUBECONFIG"]))

    def simulate(self, what: str) -> None:
        """Have something happen to the simulated cluster, such as `nodes/NAME/kill` or `pods/NAMESPACE/NAME/oom`."""
        api = self.cluster_api().api_client
        answer = api.call_api(*api.param_serialize("POST", f"/simulator/{what}", auth_settings=["BearerToken"]))
        assert answer.status in {200, 204}, answer.read()

    def check_logs(self) -> None:
        """No log may hold a secret that was used."""
        text = self.log_text()
        leaked = sorted(secret[:6] for secret in self.secrets if secret and secret in text)
        assert not leaked, f"secrets in the logs, beginning with {leaked}"

    def log_text(self) -> str:
        """Everything that any part has logged."""
        files = [*self.state.logs.glob("*"), *(self.state.root / "log.old").glob("*"), self.output]
        return "\n".join(file.read_text(errors="replace") for file in files if file.is_file())

    async def login(self, name: str) -> "ApiUser":
        """A user with a key of their own."""
        return ApiUser(self, name, await asyncio.to_thread(log_in, self, name))


def log_in(stack: LocalStack, name: str) -> str:
    """A new key of a user's. Blocks for a second."""
    exported = stack.identity(name)
    stack.secrets |= {exported["AWS_SECRET_ACCESS_KEY"], exported["AWS_SESSION_TOKEN"]}
    body = {name.lower(): exported[name] for name in exported if name.startswith("AWS_") and name not in _NOT_LOGIN}
    with httpx.Client(base_url=stack.url, timeout=30, trust_env=False) as client:
        answer = client.post("/v1/auth/aws-login", json=body)
    assert answer.status_code == 200, answer.text
    key = str(answer.json()["api_key"])
    stack.secrets.add(key)
    return key


@contextmanager
def hanging(stack: LocalStack, part: str) -> Iterator[None]:
    """The process is there and answers nothing."""
    with hung(stack.parts()[part].pid):
        yield


_NOT_LOGIN = {"AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"}
TERMINAL = {"completed", "failed", "cancelled", "expired"}


class ApiUser:
    """One user's calls through the ingress."""

    def __init__(self, stack: LocalStack, name: str, key: str) -> None:
        self.name = name
        self.key = key
        self.client = httpx.AsyncClient(
            base_url=stack.url, timeout=30, headers={"Authorization": f"Bearer {key}"}, trust_env=False
        )

    async def submit(self, *, attempts: int = 1, **fields: Any) -> str:
        """Submit a job; its id. With more attempts, repeats on 5xx and broken connections under one idempotency key."""
        body = {"image": "debian:12", "instance_type": "p5.48xlarge", "duration_hours": 0.1, **fields}
        headers = {"Idempotency-Key": os.urandom(8).hex()}
        answer: httpx.Response | None = None
        for attempt in range(attempts):
            try:
                answer = await self.client.post("/v1/jobs/submit", json=body, headers=headers)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 200:
                return str(answer.json()["job_id"])
            if attempt < attempts - 1:
                await asyncio.sleep(0.2)
        raise AssertionError(f"not submitted: {answer.text if answer is not None else 'no answer'}")

    async def job(self, job_id: str) -> dict[str, Any]:
        """The job as its owner sees it."""
        answer = await self.client.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def wait(self, job_id: str, *statuses: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for one of the statuses (none given: any terminal one); outages of the API are sat out."""
        wanted = set(statuses) or TERMINAL
        deadline = time.monotonic() + seconds
        last: Any = None
        while time.monotonic() < deadline:
            try:
                last = await self.job(job_id)
            except (httpx.TransportError, AssertionError) as error:
                last = error
            else:
                if last["status"] in wanted:
                    return dict(last)
                assert last["status"] not in TERMINAL, f"{job_id} ended as {last['status']}: {last}"
            await asyncio.sleep(0.05)
        raise AssertionError(f"{job_id} is not {sorted(wanted)} within {seconds} s: {last}")

    async def cancel_all(self) -> None:
        """Cancel what has not ended, as far as the API answers."""
        with suppress(httpx.HTTPError):
            answer = await self.client.get("/v1/jobs?status=pending,queued,preparing,active&limit=500")
            for job in answer.raise_for_status().json()["jobs"]:
                await self.client.post(f"/v1/jobs/{job['job_id']}/cancel", headers={"Prefer": "wait=20"})

    async def availability(self) -> dict[str, dict[str, Any]]:
        """GPU availability by type."""
        answer = await self.client.get("/v1/gpu/availability")
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["availability"])

    async def free(self) -> int:
        """Free GPUs of all types."""
        return sum(entry["available"] for entry in (await self.availability()).values())


async def until(
    condition: Callable[[], Awaitable[Any]], what: str, *, seconds: float = 60.0, period: float = 0.1
) -> Any:
    """Poll until `condition` gives something truthy; errors of the connection count as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            result = await condition()
        except (httpx.TransportError, AssertionError):
            result = None
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(period)


async def answered(client: httpx.AsyncClient, method: str, path: str, **asked: Any) -> httpx.Response:
    """The answer; of health the first that is good: on a machine that is busy just then a service may be too late."""
    if not path.startswith("/health"):
        return await client.request(method, path, **asked)

    async def well() -> httpx.Response | None:
        answer = await client.request(method, path, **asked)
        return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

    answer: httpx.Response = await until(well, f"{path} is well")
    return answer


class EventLog:
    """Events as a tool sees them on NATS, each message counted."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def of(self, entity: str) -> list[str]:
        """Types of one entity's events in the order of arrival, without what all have in common."""
        return [
            event["type"].removeprefix("dev.gpudev.").removesuffix(".v1")
            for event in self.events
            if event["subject"] == entity
        ]


async def read_events(stack: LocalStack) -> EventLog:
    """Every event that was recorded until now, as the tools' user has it, who is told a moment after all others."""
    last = max([await _last_published(stack, service) for service in SERVICES])
    log, read = EventLog(), 0
    async with nats_client(stack.exports()["NATS_URL"]) as client:
        subscription = await client.jetstream().subscribe("gpudev.v1.>", stream=STREAM, ordered_consumer=True)
        while read < last:
            message = await subscription.next_msg(timeout=30)
            read = message.metadata.sequence.stream
            log.events.append(json.loads(message.data))
    return log


async def _last_published(stack: LocalStack, service: str) -> int:
    """Number in the stream of the last event of a service, once none of them waits; 0: it has none."""
    async with connected(stack.dsn(service)) as connection:

        async def nothing_waits() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL")

        await until(nothing_waits, f"all events of {service} are published", seconds=60)
        return int(await connection.fetchval("SELECT max(stream_sequence) FROM outbox") or 0)


@contextmanager
def running_stack(*, checkout: Path = ROOT, **settings: str) -> Iterator[LocalStack]:
    """A stack for the length of a block; its folder goes with it."""
    with tempfile.TemporaryDirectory(prefix="gpudev-stack-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        stack = LocalStack(Path(folder) / "state", checkout=checkout, **settings)
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()
        stack.check_logs()


@asynccontextmanager
async def users(stack: LocalStack, *names: str) -> Any:
    """Users, logged in, for the length of a block; one that fails leaves no job of theirs to the tests after it."""
    made = [await stack.login(name) for name in names]
    try:
        yield made
    except BaseException:
        for user in made:
            await user.cancel_all()
        raise
    finally:
        for user in made:
            await user.client.aclose()
