"""Users of a shared stack who have the whole fleet to themselves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.stack import ApiUser, LocalStack, until, users


@asynccontextmanager
async def guests(stack: LocalStack, *names: str) -> AsyncIterator[list[ApiUser]]:
    """Users with the whole fleet: what others left open ends before, and theirs with the block."""
    async with users(stack, *names, "operator") as (*made, operator):
        await leave_nothing(operator)
        try:
            yield made
        finally:
            await leave_nothing(operator)


async def leave_nothing(operator: ApiUser) -> None:
    """Cancel what is open, whosever it is, and wait until its GPUs are free."""
    everybodys = "/v1/jobs?user=*&status=pending,queued,preparing,active&limit=500"
    while open_jobs := (await operator.client.get(everybodys)).json()["jobs"]:
        for job in open_jobs:
            await operator.client.post(f"/v1/jobs/{job['job_id']}/cancel", headers={"Prefer": "wait=20"})

    async def is_free() -> bool:
        kinds = (await operator.client.get("/v1/gpu/availability")).json()["availability"].values()
        return all(kind["available"] == kind["total"] for kind in kinds)

    await until(is_free, "the fleet is free")
