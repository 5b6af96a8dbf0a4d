"""A job is two rows, of itself and of its access: whoever waited for its lock sees both as they are then."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest
import sqlalchemy as sa

from services.jobs import storage
from services.jobs.context import Context
from services.jobs.domain.facts import UserRequested
from services.jobs.domain.transition_table import transition_of
from services.jobs.operations.access import add_user
from services.jobs.operations.transition import apply_to_newest, write_transition
from shared.database import Statement
from tests.support.harness import eventually
from tests.support.jobs import JobsWorld, later

ACTIVE = (
    "status = 'active', node = 'n', epoch = 1, pod_name = 'p', pod_uid = 'u', launched_at = now(), "
    "expires_at = now() + interval '1 hour'"
)
_WAITING = Statement(sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))


async def by_its_owner(context: Context, job_id: UUID) -> object:
    """Found by the beginning of its id."""
    return await add_user(user_id=1, job_id=str(job_id)[:8], name="carol", key=None, now=later(), context=context)


async def by_its_id(context: Context, job_id: UUID) -> object:
    """As workers and consumers find it."""
    row = await context.database.fetch_one(storage.jobs.FIND, job_id=job_id)
    job = storage.jobs.to_job(row)
    return await apply_to_newest(job=job, fact=UserRequested("carol"), now=later(), context=context)


@pytest.mark.parametrize("ask", [by_its_owner, by_its_id])
async def test_who_waited_for_a_job_changes_what_the_other_has_left(
    jobs_without_cluster: JobsWorld, ask: Callable[[Context, UUID], Awaitable[object]]
) -> None:
    world = jobs_without_cluster
    world.settings = msgspec.structs.replace(world.settings, tools_image="tools")
    context = world.context()
    async with world.service() as client:
        job_id = await world.submit(client)
    await world.update(job_id, ACTIVE)
    async with world.database.transaction() as transaction:
        job = storage.jobs.to_job(await transaction.fetch_one(storage.jobs.LOCK, job_id=job_id))
        bob: Any = transition_of(job, UserRequested("bob"), later())
        await write_transition(transaction=transaction, before=job, transition=bob, now=later(), context=context)
        asking = asyncio.create_task(ask(context, job_id))  # type: ignore[arg-type]

        async def waits() -> bool:
            return bool(await world.database.fetch_value(_WAITING))

        await eventually(waits, "the other waits for the job")
    await asking
    found = storage.jobs.to_job(await world.row(job_id))
    assert [user.name for user in found.users] == ["bob", "carol"]
    assert (await world.announced(job_id))[-2:] == ["user_requested", "user_requested"]
