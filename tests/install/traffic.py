"""Users while something happens to the services: twenty requests a second, a followed log, held answers."""

import asyncio
import itertools
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from gpudev import Client, GpuDevError
from tests.install.installation import JOB_IMAGE

PER_SECOND = 20
HELD_SECONDS = 10
COUNT = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i + 1)); /gpudev/bin/busybox sleep 0.1; done"


class Traffic:
    """Requests that begin on time whatever the earlier ones do, none of them repeated.

    Args:
        url: Of the API.
        key: Of a user.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key
        self.failed: list[str] = []
        self.answered = 0
        self.held: list[float] = []
        """How long answers were held, in seconds."""
        self.jobs: list[str] = []
        self.lines: list[str] = []
        self._over = threading.Event()

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """For the length of a block."""
        counting = self._submit_counting()
        threads = [
            threading.Thread(target=asyncio.run, args=(self._send(counting),)),
            threading.Thread(target=self._follow, args=(counting,)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            threads[0].join(60)
            self._cancel(*self.jobs)
            threads[1].join(60)

    def failures(self) -> str:
        """What failed, each kind once: how often, from when to when."""
        kinds: dict[str, list[str]] = defaultdict(list)
        for failure in self.failed:
            began, _, what = failure.partition(" ")
            kinds[re.sub(r"/[0-9a-f-]{36}", "/ID", what)].append(began)
        told = [f"{len(times)} from {min(times)} to {max(times)}: {what}" for what, times in sorted(kinds.items())]
        return "\n".join([f"{len(self.failed)} of {self.answered} failed", *told])

    def _client(self) -> Client:
        return Client(self._url, self._key)

    def _submit_counting(self) -> str:
        with self._client() as client:
            job = client.submit_job(
                image=JOB_IMAGE, instance_type="p5.48xlarge", gpu_count=1, duration_hours=1, command=COUNT
            )
            self.jobs.append(str(job.job_id))
            deadline = time.monotonic() + 180
            while client.get_job(job.job_id).status != "active":
                assert time.monotonic() < deadline, client.get_job(job.job_id)
                time.sleep(0.5)
        return str(job.job_id)

    def _cancel(self, *jobs: str) -> None:
        """Whatever has not ended, so that the next one finds the GPUs free."""
        with self._client() as client:
            for job in jobs:
                with suppress(GpuDevError):
                    client.cancel_job(job)

    def _follow(self, job: str) -> None:
        pieces: list[bytes] = []
        try:
            with self._client() as client:
                pieces.extend(client.follow_job_logs(job))
        except GpuDevError as error:
            self.failed.append(f"{time.strftime('%H:%M:%S')} followed log: {error!r}")
        self.lines = b"".join(pieces).decode().splitlines()

    async def _send(self, job: str) -> None:
        requests = itertools.cycle(
            [
                ("GET", f"/v1/jobs/{job}"),
                ("GET", "/v1/jobs"),
                ("GET", "/v1/gpu/availability"),
                ("GET", "/v1/disks"),
                ("GET", "/v1/keys"),
            ]
        )
        headers = {"Authorization": f"Bearer {self._key}"}
        client = httpx.AsyncClient(base_url=self._url, headers=headers, trust_env=False, timeout=40)
        async with client, asyncio.TaskGroup() as group:
            for number in itertools.count():
                if self._over.is_set():
                    break
                group.create_task(self._ask(client, *next(requests)))
                if number % (2 * PER_SECOND) == 0:
                    group.create_task(self._submit(client))
                if number % (2 * HELD_SECONDS * PER_SECOND) == 0:
                    group.create_task(self._hold(client))
                await asyncio.sleep(1 / PER_SECOND)

    async def _ask(self, client: httpx.AsyncClient, method: str, path: str, **more: Any) -> httpx.Response | None:
        began = time.strftime("%H:%M:%S")
        try:
            answer = await client.request(method, path, **more)
        except httpx.HTTPError as error:
            self.failed.append(f"{began} {method} {path}: {error!r}")
            return None
        if answer.status_code != httpx.codes.OK:
            self.failed.append(f"{began} {method} {path}: {answer.status_code} {answer.text[:200]}")
        self.answered += 1
        return answer

    async def _submit(self, client: httpx.AsyncClient, gpus: int = 1, **headers: str) -> str | None:
        job = {
            "image": JOB_IMAGE,
            "instance_type": "p5.48xlarge",
            "gpu_count": gpus,
            "duration_hours": 1,
            "command": ":",
        }
        given = {"Content-Type": "application/json", **headers}
        answer = await self._ask(client, "POST", "/v1/jobs/submit", content=json.dumps(job), headers=given)
        if answer is None or answer.status_code != httpx.codes.OK:
            return None
        self.jobs.append(answer.json()["job_id"])
        return self.jobs[-1]

    async def _hold(self, client: httpx.AsyncClient) -> None:
        """A job of all GPUs cannot start beside the one that counts: its answer is held for as long as asked."""
        began = time.monotonic()
        job = await self._submit(client, 8, Prefer=f"wait={HELD_SECONDS}")
        self.held.append(time.monotonic() - began)
        if job is not None:
            await self._ask(client, "POST", f"/v1/jobs/{job}/cancel")
