"""A burst of jobs, and what must be true while and after it runs."""

import asyncio
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.support.stack import ApiUser, EventLog, LocalStack, read_events, until

INSTANCE_TYPES = ("p5.48xlarge", "p4d.24xlarge")
FLEET_GPUS = 32
VICTIMS = ("auth-1", "jobs-1", "disks-1", "capacity-1", "postgres", "nats", "traefik", "cluster")
"""Processes of a stack with one replica of each service, each of which may die."""
FREE_AT_FIRST = 2
"""Jobs of 8 GPUs of one type that the empty demo fleet takes at once."""


class Burst:
    """Jobs of 8 GPUs, each of which writes its number into a file once it runs.

    Args:
        users: Who submit, in turn.
        folder: Of the file.
        jobs: How many.
        seconds: How long each command takes.
    """

    def __init__(self, users: list[ApiUser], folder: Path, *, jobs: int, seconds: float = 0.3) -> None:
        self._users = users
        self._runs = folder / "runs.txt"
        self._jobs = jobs
        self._seconds = seconds
        self.ids: list[str] = []
        self.most_leased = 0

    def _owner(self, number: int) -> ApiUser:
        return self._users[number % len(self._users)]

    async def submit(self, *, attempts: int = 1) -> None:
        """Submit all, one after the other, so that their order is known."""
        self._runs.touch()
        for number in range(self._jobs):
            self.ids.append(
                await self._owner(number).submit(
                    attempts=attempts,
                    instance_type=INSTANCE_TYPES[number % 2],
                    command=f"echo {number} >> {self._runs}; sleep {self._seconds}",
                )
            )

    async def watch_leases(self) -> None:
        """Sample the leased GPUs until cancelled; outages of the API are sat out."""
        while True:
            try:
                leased = sum(entry["in_use"] for entry in (await self._users[0].availability()).values())
                self.most_leased = max(self.most_leased, leased)
            except (httpx.TransportError, AssertionError):
                pass
            await asyncio.sleep(0.02)

    async def wait(self, *, seconds: float) -> list[dict[str, Any]]:
        """Every job once it has ended."""
        async with asyncio.timeout(seconds):
            return [await self._owner(n).wait(job_id, seconds=seconds) for n, job_id in enumerate(self.ids)]

    def runs(self) -> Counter[int]:
        """How often each job's command ran."""
        return Counter(int(line) for line in self._runs.read_text().split())

    async def check(self, stack: LocalStack, jobs: list[dict[str, Any]], *, unordered: int | None = 0) -> None:
        """All that must hold when every job has ended.

        Args:
            stack: That ran them.
            jobs: As they are now.
            unordered: How many of the first jobs of each type may have been granted in any order; None: all of them.
        """
        assert Counter(job["status"] for job in jobs) == {"completed": self._jobs}, [
            (job["job_id"], job["status"], job["failure_reason"]) for job in jobs if job["status"] != "completed"
        ]
        assert self.runs() == Counter(range(self._jobs)), "each command runs exactly once"
        assert self.most_leased <= FLEET_GPUS
        await until(lambda: _all_free(self._users[0]), "capacity as before")
        await until(lambda: _nothing_left(stack), "nothing left in the cluster")
        log = await read_events(stack)
        check_events(log, self.ids)
        if unordered is not None:
            for kind in range(len(INSTANCE_TYPES)):
                check_order(log, self.ids[kind :: len(INSTANCE_TYPES)], unordered=unordered)


async def _all_free(user: ApiUser) -> bool:
    return await user.free() == FLEET_GPUS


async def _nothing_left(stack: LocalStack) -> bool:
    return not await asyncio.to_thread(cluster_objects, stack)


async def works(user: ApiUser) -> bool:
    """Whether every service answers."""
    paths = ("/v1/jobs", "/v1/gpu/availability", "/v1/disks", "/health")
    return all([(await user.client.get(path)).status_code == httpx.codes.OK for path in paths])


def cluster_volumes(stack: LocalStack) -> list[str]:
    """Persistent volumes of jobs, and claims on them, that the cluster has now."""
    api = stack.cluster_api()
    selector = {"label_selector": "gpudev/job-id"}
    lists = (
        api.list_namespaced_persistent_volume_claim("gpudev", **selector),
        api.list_persistent_volume(**selector),
    )
    names = [item.metadata.name for listed in lists for item in listed.items]
    api.api_client.close()
    return names


def cluster_objects(stack: LocalStack) -> list[str]:
    """Pods, secrets and services of jobs that the cluster has now."""
    api = stack.cluster_api()
    selector = {"label_selector": "gpudev/job-id"}
    lists = (
        api.list_namespaced_pod("gpudev", **selector),
        api.list_namespaced_secret("gpudev", **selector),
        api.list_namespaced_service("gpudev", **selector),
    )
    names = [item.metadata.name for listed in lists for item in listed.items]
    api.api_client.close()
    return names


def check_events(log: EventLog, ids: list[str]) -> None:
    """No event of these jobs missing or doubled: their versions rise by one from 1, and each life is whole."""
    seen = Counter(event["id"] for event in log.events if event["subject"] in set(ids))
    assert max(seen.values()) == 1, [event_id for event_id, times in seen.items() if times > 1]
    for job_id in ids:
        versions = [e["sequence"] for e in log.events if e["subject"] == job_id and e["source"] == "/gpudev/jobs"]
        assert versions == list(range(1, len(versions) + 1)), (job_id, versions, log.of(job_id))
        lived = [name for name in log.of(job_id) if name.startswith("jobs.")]
        assert lived[0] == "jobs.submitted"
        assert lived[-3:] == ["jobs.preparing", "jobs.started", "jobs.ended"], lived
        leased = Counter(name for name in log.of(job_id) if name.startswith("capacity."))
        assert leased["capacity.granted"] == leased["capacity.released"] == 1, leased


def check_order(log: EventLog, ids: list[str], *, unordered: int) -> None:
    """GPUs were granted in the order of submission; the first `unordered` jobs were, in any order, before the rest."""
    granted = [event["subject"] for event in log.events if event["type"] == "dev.gpudev.capacity.granted.v1"]
    order = [job_id for job_id in granted if job_id in set(ids)]
    numbers = [ids.index(job_id) for job_id in order]
    assert sorted(numbers[:unordered]) + numbers[unordered:] == list(range(len(ids))), numbers


def shell(script: str, *, environment: dict[str, str]) -> str:
    """Output of a shell script."""
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def parse_last_json(text: str) -> Any:
    """The JSON object at the end of a text."""
    return json.loads(text[text.index("{") :])
