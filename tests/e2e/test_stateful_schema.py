"""Two users' requests that follow from each other, through the ingress: as documented, and to each their own.

Which user sends a request is drawn, whoever has made what it is about: so each asks for the other's all the time.
"""

import asyncio
import itertools
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS
from schemathesis.generation.stateful.state_machine import APIStateMachine

from tests.support.stack import ApiUser, LocalStack, running_stack, users

NAMES = ("ann", "bob")
WEBHOOK = "https://93.184.215.14/hook"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_OF_THE_RUN = "^(/health|/v1/keys|/v1/auth|/docs|/openapi.json|.*/events$|/$)"
"""Keys would end the run's own, followed events do not end, and health is 503 by design while something is away."""
_SETTINGS = settings(
    max_examples=5,
    stateful_step_count=50,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
_PATH_IDS = {"job_id", "webhook_id", "operation_id"}
_REFUSED = {400, 401, 403, 404, 415, 422}
"""What may be said about another's object: as of one that is not there. Some requests are sent without a key."""
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)


@dataclass
class Owners:
    """Whose each id is: of whoever was told it first without having said it."""

    by_id: dict[str, str] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    others: int = 0
    """Requests about another's object."""

    def check(self, who: str, response: Any, path: dict[str, Any]) -> None:
        """Nobody is told an id of another's that they have not said, or more of another's object than of none."""
        self.statuses[response.status_code] += 1
        request = response.request
        at = (who, request.method, request.url, response.status_code, response.text)
        said = set(_ID.findall(f"{request.url} {request.body!r} {dict(request.headers)}"))
        told = set(_ID.findall(response.text)) - said
        assert all(self.by_id.setdefault(one, who) == who for one in told), at
        if any(self.by_id.get(str(path[name]), who) != who for name in _PATH_IDS & path.keys()):
            self.others += response.status_code != httpx.codes.UNAUTHORIZED
            assert response.status_code in _REFUSED, at


def tame(case: Any) -> None:
    """Without what would take long, or really run."""
    for name in ("Authorization", "Prefer"):
        case.headers.pop(name, None)
    (case.query or {}).pop("follow", None)
    body = case.body if isinstance(case.body, dict) else {}
    several = body.get("jobs")
    for job in [body, *(several if isinstance(several, list) else ())]:
        if isinstance(job, dict) and isinstance(job.get("command"), str):
            job["command"] = "sleep 1"
    if "url" in body:
        body["url"] = WEBHOOK  # most others are refused


def machine_of(schema: Any, keys: dict[str, str], owners: Owners) -> type[APIStateMachine]:
    """The sequences, with a user drawn for each request."""
    checks = CHECKS.get_by_names(list(CHECKED))

    class Machine(schema.as_state_machine()):  # type: ignore[misc]
        chance = random.Random(20260120)

        def before_call(self, case: Any) -> None:
            tame(case)

        def get_call_kwargs(self, _: Any) -> dict[str, Any]:
            self.who = NAMES[self.chance.randrange(2)]
            return {"headers": {"Authorization": f"Bearer {keys[self.who]}"}, "timeout": 60}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            case.validate_response(response, checks=checks)
            owners.check(self.who, response, case.path_parameters or {})

    return Machine


async def walk(stack: LocalStack, least: int) -> Owners:
    """So many requests of both users, or a few more; each of them has something already."""
    async with users(stack, *NAMES) as both:
        keys = {user.name: user.key for user in both}
        owners = Owners()
        for user in both:
            await own_something(user.client)

        def run() -> None:
            schema = schemathesis.openapi.from_url(f"{stack.url}/openapi.json").exclude(path_regex=_OF_THE_RUN)
            machine = machine_of(schema, keys, owners)
            for seed in itertools.count(1):
                if owners.statuses.total() >= least:
                    return
                machine._hypothesis_internal_use_seed = seed
                machine.run(settings=_SETTINGS)

        await asyncio.to_thread(run)
        for user in both:
            await cancel_all(user)
    return owners


async def own_something(client: httpx.AsyncClient) -> None:
    """Jobs, a disk and a webhook of a user's own."""
    job = {"image": "debian:12", "instance_type": "p5.48xlarge", "gpu_count": 1, "command": "sleep 60"}
    for path, body in (
        ("/v1/jobs/submit", job),
        ("/v1/jobs/submit", job),
        ("/v1/webhooks", {"url": WEBHOOK}),
        ("/v1/disks", {"disk_name": "data", "size_gb": 10}),
    ):
        answer = await client.post(path, json=body)
        assert answer.status_code == 200, answer.text


async def cancel_all(user: ApiUser) -> None:
    asked = "/v1/jobs?status=pending,queued,preparing,active&limit=100"
    while jobs := (await user.client.get(asked)).json()["jobs"]:
        for job in jobs:
            await user.client.post(f"/v1/jobs/{job['job_id']}/cancel")
        for job in jobs:
            await user.wait(job["job_id"], seconds=60)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_two_users_see_what_is_documented_and_nothing_of_each_other() -> None:
    await check(500)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_two_users_see_nothing_of_each_other_in_five_thousand_requests() -> None:
    await check(5000)


async def check(least: int) -> None:
    with running_stack() as stack:
        owners = await walk(stack, least)
    assert owners.others >= least / 100, "there were requests about another's object"
    assert owners.statuses[200] > least / 20, owners.statuses
