"""An upgrade over the split of the jobs' tables: a database that the release before filled, its replica beside ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
import sqlalchemy as sa

from deploy.local.namespace import ensure_namespace
from shared.contracts.disks import ClaimReply
from shared.database import Statement, migrate
from tests.support import former_release
from tests.support.harness import eventually
from tests.support.jobs import (
    Client,
    JobsWorld,
    first_gpu_node,
    job_of,
    kube,
    new_disk_claimed,
    open_world,
    until_status,
)
from tests.support.servers import ClusterSimulator, NatsServer, PostgresServer
from tests.support.tools_pods import Tools, key_pages

ALICE, BOB = (f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{letter * 43}" for letter in "AB")
RUNS_THROUGH = "echo before; trap 'echo last; exit 0' TERM; while :; do sleep 0.05; done"
HELD = {"Prefer": "wait=30"}
Seen: TypeAlias = tuple[dict[str, Any], str, str]
"""A job, its history and its log."""
_DIFFERING = Statement(
    sa.text("""
        SELECT jobs.id FROM jobs LEFT JOIN job_access ON job_access.job_id = jobs.id
        LEFT JOIN job_logs ON job_logs.job_id = jobs.id
        WHERE (jobs.users, jobs.jupyter_wanted, jobs.jupyter_enabled, jobs.jupyter_revision, jobs.jupyter_applied,
               jobs.jupyter_error, jobs.jupyter_token_sealed, jobs.access_due_at, jobs.access_worked_by)
        IS DISTINCT FROM (job_access.users, job_access.jupyter_wanted, job_access.jupyter_enabled,
               job_access.jupyter_revision, job_access.jupyter_applied, job_access.jupyter_error,
               job_access.jupyter_token_sealed, job_access.due_at, job_access.worked_by)
        OR (jobs.log_kept, jobs.log_final, jobs.log_tries)
        IS DISTINCT FROM (job_logs.sealed IS NOT NULL, coalesce(job_logs.final, false), coalesce(job_logs.tries, 0))
    """)
)


@dataclass
class Upgrade:
    """A world whose schema is still as the release before left it."""

    world: JobsWorld
    dsn: str
    code: Path

    @property
    def operator(self) -> dict[str, str]:
        """Headers of an operator's requests."""
        return self.world.people.bearer("olga")

    @asynccontextmanager
    async def former_service(self) -> AsyncIterator[Client]:
        """A replica of the release before, and alice's client of it."""
        headers, _ = self.world.people.bearer("alice"), self.operator
        known = {key.hash: identity for key, identity in self.world.people.keys.values()}
        with former_release.replica(self.code, self.world.settings, known) as address:
            async with httpx.AsyncClient(base_url=address, headers=headers, trust_env=False, timeout=40) as client:
                yield client


@pytest.fixture
async def upgrade(
    postgres_server: PostgresServer, nats_server: NatsServer, jobs_kubeconfig: Path, tmp_path: Path
) -> AsyncIterator[Upgrade]:
    code, namespace = former_release.unpack(tmp_path), f"jobs-{uuid4().hex[:10]}"
    dsn = postgres_server.make_service_database("jobs")
    await asyncio.to_thread(former_release.migrate, code, dsn)
    await asyncio.to_thread(ensure_namespace, str(jobs_kubeconfig), namespace)
    nats_url = nats_server.service_url("jobs")
    async with (
        open_world(dsn, nats_url, str(jobs_kubeconfig), namespace) as world,
        key_pages(world, alice=ALICE, bob=BOB),
    ):
        world.node = await asyncio.to_thread(first_gpu_node, str(jobs_kubeconfig))
        # a pod of a node that there is not waits for as long as the test does
        world.settings = msgspec.structs.replace(world.settings, unschedulable_seconds=600.0)
        yield Upgrade(world, dsn, code)
        await kube(world).give_gpus_back()
    postgres_server.drop_database(dsn)


async def fill(world: JobsWorld, client: Client) -> dict[str, UUID]:
    """A job in each status."""
    claimed = new_disk_claimed().claim
    assert claimed is not None
    async with world.disks_answering(ClaimReply(claim=msgspec.structs.replace(claimed, ready=False))):
        jobs = {"pending": await world.submit(client, disk_name="data")}
    jobs["queued"] = await world.submit(client, env_vars={"NAME": "value"})
    jobs["cancelled"] = await world.submit(client)
    await client.post(f"/v1/jobs/{jobs['cancelled']}/cancel")
    jobs["preparing"] = await world.submit(client)
    await world.grant(jobs["preparing"], node="no-such-node")
    commands = {"active": RUNS_THROUGH, "expired": RUNS_THROUGH, "completed": "echo done", "failed": "echo bad; exit 3"}
    for status, command in commands.items():
        jobs[status] = await world.submit(client, command=command, github_user="alice")
        await world.grant(jobs[status])
    await until_status(client, jobs["expired"], "active")
    await world.update(jobs["expired"], "expires_at = now(), due_at = now()")
    for status, job_id in jobs.items():
        await until_status(client, job_id, status)
    return jobs


async def seen(client: Client, job_id: UUID) -> Seen:
    """All that a job's owner sees of it."""
    history = await client.get(f"/v1/jobs/{job_id}/history")
    log = await client.get(f"/v1/jobs/{job_id}/logs")
    return await job_of(client, job_id), history.text, log.text


def without_added_fields(now: Seen, before: Seen) -> Seen:
    """What a new release shows, less the fields that the former one did not know."""
    return {name: now[0].get(name) for name in before[0]}, *now[1:]


async def ask(client: Client, job_id: UUID, action: str, body: dict[str, Any] | None = None) -> None:
    answer = await client.post(f"/v1/jobs/{job_id}/{action}", json=body, headers=HELD)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "succeeded", answer.text


async def assert_alike(upgrade: Upgrade, former: Client, ours: Client, job_id: UUID) -> dict[str, Any]:
    """Both releases show the job alike, and their columns hold the same."""

    async def alike() -> bool:
        # what a worker writes between the two readings is seen by the next ones
        before = await seen(former, job_id)
        return without_added_fields(await seen(ours, job_id), before) == before

    await eventually(alike, "both releases show the same")
    assert await upgrade.world.database.fetch_all(_DIFFERING) == []
    return await job_of(ours, job_id)


@pytest.mark.slow
async def test_a_job_runs_through_an_upgrade_and_both_releases_work_on_one_database(
    upgrade: Upgrade, cluster_simulator: ClusterSimulator
) -> None:
    world = upgrade.world
    async with upgrade.former_service() as former:
        jobs = await fill(world, former)
        before = {status: await seen(former, job_id) for status, job_id in jobs.items()}
        await asyncio.to_thread(migrate.upgrade, "jobs", upgrade.dsn)
        await asyncio.to_thread(migrate.check, "jobs", upgrade.dsn)
        assert {status: await seen(former, job_id) for status, job_id in jobs.items()} == before
        async with world.service() as ours:
            for status, job_id in jobs.items():
                now = without_added_fields(await seen(ours, job_id), before[status])
                # what the new release learns of a running job, such as its host keys, is a change of the job
                assert now == ({**before[status][0], "updated_at": now[0]["updated_at"]}, *before[status][1:])
            await share(upgrade, former, ours, jobs["active"], cluster_simulator)
            mixed = await exchange(upgrade, former, ours)
    async with world.service() as ours:
        for job_id in (*mixed, jobs["active"], jobs["preparing"], jobs["queued"], jobs["pending"]):
            await ours.post(f"/v1/jobs/{job_id}/cancel")
            await until_status(ours, job_id, "cancelled")
        log = (await seen(ours, jobs["active"]))[2]
        assert (log.splitlines()[0], log.splitlines()[-1]) == ("before", "last")
        await eventually(lambda: nothing_left(world), "nothing is left in the cluster")
    for job_id in jobs.values():
        await world.announced(job_id)  # each version once


async def share(upgrade: Upgrade, former: Client, ours: Client, job_id: UUID, simulator: ClusterSimulator) -> None:
    """The job that runs through is asked for everything through the one and the other."""
    tools = Tools.take_over(simulator, (await upgrade.world.row(job_id))["pod_uid"])
    await ask(former, job_id, "users", {"github_username": "bob"})
    assert (await assert_alike(upgrade, former, ours, job_id))["secondary_users"] == ["bob"]
    assert BOB in tools.authorized_keys
    await ask(ours, job_id, "jupyter/enable")
    assert (await assert_alike(upgrade, former, ours, job_id))["jupyter_token"]
    await ask(former, job_id, "jupyter/disable")
    assert not (await assert_alike(upgrade, former, ours, job_id))["jupyter_enabled"]
    await ask(ours, job_id, "extend", {"extension_hours": 1})
    await assert_alike(upgrade, former, ours, job_id)


async def exchange(upgrade: Upgrade, former: Client, ours: Client) -> list[UUID]:
    """Each release's jobs through the other: one that ends by itself, and one that waits."""
    world, waiting = upgrade.world, []
    for here, there in ((former, ours), (ours, former)):
        job_id = await world.submit(here, command="echo hello; exit 3", github_user="alice")
        await assert_alike(upgrade, former, ours, job_id)
        await world.grant(job_id)
        await until_status(there, job_id, "failed")
        await assert_alike(upgrade, former, ours, job_id)
        assert (await seen(there, job_id))[2] == "hello\n"
        cancelled, waits = await world.submit(here, github_user="alice"), await world.submit(here)
        await ask(there, cancelled, "cancel")
        await assert_alike(upgrade, former, ours, cancelled)
        await prioritise(upgrade, former, ours, waits)
        waiting.append(waits)
    return waiting


async def prioritise(upgrade: Upgrade, former: Client, ours: Client, job_id: UUID) -> None:
    """The last priority that an operator has set is the job's, whoever was asked."""
    for client, priority in ((former, 4), (ours, -3), (former, 7), (former, 0)):
        answer = await client.post(f"/v1/jobs/{job_id}/priority", json={"priority": priority}, headers=upgrade.operator)
        assert answer.status_code == 200, answer.text
        assert (await upgrade.world.row(job_id))["priority"] == priority


async def nothing_left(world: JobsWorld) -> bool:
    return not await world.objects()
