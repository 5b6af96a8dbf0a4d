"""The life of a job on a cluster, with capacity played by the test."""

from argparse import Namespace
from datetime import datetime
from uuid import UUID, uuid4

import msgspec
import pytest

from services.jobs.api.administration import commands
from shared.audit import Act, audit_endpoint, begin_act
from shared.contracts.audit import AuditQuery
from shared.contracts.capacity import JobQueued, LeaseGranted, LeaseRevoked
from shared.contracts.disks import DiskClaimed, DiskOperationFailed
from shared.contracts.jobs import JobReady
from shared.metrics import ORPHANS
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, body, job_of, kube, until_status
from tests.support.promises import promised

MINUTE = "interval '1 minute'"


async def start(world: JobsWorld, client: Client, **changes: object) -> UUID:
    job_id = await world.submit(client, **changes)
    await world.grant(job_id)
    await until_status(client, job_id, "active")
    return job_id


async def nothing_left(world: JobsWorld, job_id: UUID) -> bool:
    return not await world.objects(job_id)


async def test_a_granted_job_becomes_active_with_its_time_box(world: JobsWorld, client: Client) -> None:
    with promised(5):
        job_id = await world.submit(client, duration_hours=0.5)
        await world.grant(job_id)
        job = await until_status(client, job_id, "active")
    assert job["expires_at"] > job["launched_at"] >= job["created_at"]
    assert (job["pod_name"], job["node_ip"] is not None) == (f"gpu-dev-{job_id}-1", True)
    assert job["node_port"] >= 30000
    assert await world.announced(job_id) == ["submitted", "preparing", "started"]
    assert await world.history(job_id) == ["queued", "preparing", "active"]
    assert sorted(kind for kind, _ in await world.objects(job_id)) == ["pods", "secrets", "services"]


@pytest.mark.parametrize(("command", "status", "code"), [("exit 0", "completed", 0), ("exit 3", "failed", 3)])
async def test_a_command_ends_its_job_however_short_it_is(
    world: JobsWorld, client: Client, command: str, status: str, code: int
) -> None:
    job_id = await world.submit(client, command=command)
    await world.grant(job_id)
    job = await until_status(client, job_id, "completed", "failed")
    assert (job["status"], job["exit_code"]) == (status, code)
    assert await world.announced(job_id) == ["submitted", "preparing", "started", "ended"]
    assert await world.history(job_id) == ["queued", "preparing", "active", status]
    assert (await world.row(job_id))["env_sealed"] is None
    await eventually(lambda: nothing_left(world, job_id), "nothing of it is left")


async def test_the_environment_reaches_the_command(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client, env_vars={"CODE": "7", "TEXT": "a b'\"\n$(x)"}, command='exit "$CODE"')
    await world.grant(job_id)
    assert (await until_status(client, job_id, "failed"))["exit_code"] == 7


async def test_a_cancelled_active_job_ends_when_its_pod_is_gone(world: JobsWorld, client: Client) -> None:
    job_id = await start(world, client)
    first = await client.post(f"/v1/jobs/{job_id}/cancel")
    await until_status(client, job_id, "cancelled")
    assert "pods" not in {kind for kind, _ in await world.objects(job_id)}
    assert await world.announced(job_id) == ["submitted", "preparing", "started", "cancel_requested", "ended"]
    assert (await client.post(f"/v1/jobs/{job_id}/cancel")).json() == first.json()
    await eventually(lambda: nothing_left(world, job_id), "service and secret are gone")


async def test_a_job_cancelled_while_preparing_leaves_nothing(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client, image="docker.io/library/does-not-exist:1")
    await world.grant(job_id)
    await eventually(lambda: world.objects(job_id), "its pod is there")
    await client.post(f"/v1/jobs/{job_id}/cancel")
    await until_status(client, job_id, "cancelled")
    await eventually(lambda: nothing_left(world, job_id), "nothing of it is left")
    assert await world.announced(job_id) == ["submitted", "preparing", "cancel_requested", "ended"]


async def test_a_grant_that_comes_after_the_cancel_makes_no_pod(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    await client.post(f"/v1/jobs/{job_id}/cancel")
    await world.grant(job_id)
    other = await start(world, client)  # one consumer, in order: the grant before it has been handled
    assert (await job_of(client, job_id))["status"] == "cancelled"
    assert not await world.objects(job_id)
    assert await world.announced(job_id) == ["submitted", "cancel_requested", "ended"]
    assert await world.announced(other) == ["submitted", "preparing", "started"]


async def test_a_grant_delivered_again_after_the_end_revives_nothing(world: JobsWorld, client: Client) -> None:
    """Incident 1."""
    job_id = await world.submit(client, command="exit 0")
    event_id = await world.grant(job_id)
    await until_status(client, job_id, "completed")
    told = await world.announced(job_id)
    lease = LeaseGranted(job_id=job_id, epoch=1, node=world.node, gpu_count=1)
    await world.publish(lease, sequence=1, event_id=event_id)
    await world.publish(lease, sequence=9)
    await start(world, client)
    assert (await job_of(client, job_id))["status"] == "completed"
    assert await world.announced(job_id) == told
    assert await nothing_left(world, job_id)


async def test_a_cancelled_job_stays_so_when_its_messages_come_again(world: JobsWorld, client: Client) -> None:
    """Incident 1."""
    headers = {"Idempotency-Key": "once"}
    first = await client.post("/v1/jobs/submit", json=body(), headers=headers)
    job_id = UUID(first.json()["job_id"])
    event_id = await world.grant(job_id)
    await until_status(client, job_id, "active")
    await client.post(f"/v1/jobs/{job_id}/cancel")
    await until_status(client, job_id, "cancelled")
    told = await world.announced(job_id)
    again = await client.post("/v1/jobs/submit", json=body(), headers=headers)
    assert (again.json(), (await client.get("/v1/jobs")).json()["total"]) == (first.json(), 1)
    lease = LeaseGranted(job_id=job_id, epoch=1, node=world.node, gpu_count=1)
    await world.publish(lease, sequence=1, event_id=event_id)
    await world.publish(LeaseGranted(job_id=job_id, epoch=2, node=world.node, gpu_count=1), sequence=2)
    await start(world, client)  # one consumer, in order: the grants before it have been handled
    assert (await job_of(client, job_id))["status"] == "cancelled"
    assert await world.announced(job_id) == told
    assert await nothing_left(world, job_id)


async def test_one_grant_at_two_replicas_makes_one_pod(world: JobsWorld, client: Client) -> None:
    """Incident 2."""
    async with world.service():
        jobs = [await world.submit(client, command="exit 0") for _ in range(4)]
        for job_id in jobs:
            lease = LeaseGranted(job_id=job_id, epoch=1, node=world.node, gpu_count=1)
            event_id = uuid4()
            for _ in range(3):
                await world.publish(lease, sequence=1, event_id=event_id)
        for job_id in jobs:
            await until_status(client, job_id, "completed")
            assert await world.announced(job_id) == ["submitted", "preparing", "started", "ended"]
    created = [event for event in await kube(world).events() if event[0] == "Scheduled"]
    assert len(created) == len(set(created)) == len(jobs)


async def test_an_image_that_cannot_be_pulled_fails_the_job_with_the_reason(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client, image="docker.io/library/does-not-exist:1")
    await world.grant(job_id)
    job = await until_status(client, job_id, "failed")
    assert "does-not-exist:1 cannot be pulled" in job["failure_reason"]
    assert await world.announced(job_id) == ["submitted", "preparing", "ended"]
    await eventually(lambda: nothing_left(world, job_id), "nothing of it is left")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}, "evicted"),
        ({"phase": "Failed", "containerStatuses": "OOMKilled"}, "out of memory"),
    ],
)
async def test_a_pod_ended_by_the_cluster_ends_its_job_with_the_reason(
    world: JobsWorld, client: Client, status: dict[str, object], words: str
) -> None:
    """Incident 6."""
    job_id = await start(world, client)
    await kube(world).set_pod_status(f"gpu-dev-{job_id}-1", status)
    job = await until_status(client, job_id, "failed")
    assert words in job["failure_reason"]
    await eventually(lambda: nothing_left(world, job_id), "nothing of it is left")


async def test_a_pod_deleted_from_outside_ends_its_job(world: JobsWorld, client: Client) -> None:
    job_id = await start(world, client)
    [uid] = [meta.uid for kind, meta in await world.objects(job_id) if kind == "pods"]
    await world.cluster.delete_pod(f"gpu-dev-{job_id}-1", uid)
    job = await until_status(client, job_id, "failed")
    assert "deleted from outside" in job["failure_reason"]


async def test_a_job_ends_when_its_time_is_up_and_its_killed_command_is_expired(
    world: JobsWorld, client: Client
) -> None:
    job_id = await start(world, client, command="sleep 600")
    await world.update(job_id, "expires_at = now(), due_at = now()")
    job = await until_status(client, job_id, "expired")
    assert (job["exit_code"], job["failure_reason"]) == (None, None)
    assert await world.announced(job_id) == ["submitted", "preparing", "started", "ended"]


async def test_the_end_is_announced_once_for_each_moment(world: JobsWorld, client: Client) -> None:
    job_id = await start(world, client, duration_hours=1)
    for left, minutes in ((25, 30), (14, 15), (4, 5)):
        times = f"launched_at = now() - {60 - left} * {MINUTE}, expires_at = now() + {left} * {MINUTE}"
        await world.update(job_id, f"{times}, due_at = now()")

        async def warned(minutes: int = minutes) -> bool:
            return f"Expires in {minutes} minutes" in str((await job_of(client, job_id))["warning"])

        await eventually(warned, f"warned of {minutes} minutes")
    assert await world.announced(job_id) == ["submitted", "preparing", "started", "expiring", "expiring", "expiring"]


async def test_a_pod_that_finds_no_room_gives_the_lease_back_and_waits_for_another(
    world: JobsWorld, client: Client
) -> None:
    job_id = await world.submit(client)
    await world.grant(job_id, node="no-such-node")

    async def requeued() -> bool:
        return "requeued" in await world.announced(job_id)

    await eventually(requeued, "it is in the queue again")
    job = await job_of(client, job_id)
    assert (job["status"], job["pod_name"]) == ("queued", None)
    await eventually(lambda: nothing_left(world, job_id), "nothing of the old lease is left")
    await world.grant(job_id, epoch=2)
    assert (await until_status(client, job_id, "active"))["pod_name"] == f"gpu-dev-{job_id}-2"
    assert await world.announced(job_id) == ["submitted", "preparing", "requeued", "preparing", "started"]


async def test_a_lease_revoked_from_an_active_job_is_its_end_and_holds_until_the_pod_is_gone(
    world: JobsWorld, client: Client
) -> None:
    job_id = await start(world, client)
    await world.capacity_says(LeaseRevoked(job_id=job_id, epoch=1, reason="node is gone"))
    job = await until_status(client, job_id, "failed")
    assert "node was lost" in job["failure_reason"]

    async def ended() -> bool:
        return (await world.announced(job_id))[-1] == "ended"

    await eventually(ended, "its pod is confirmed gone")
    assert await world.announced(job_id) == ["submitted", "preparing", "started", "lost", "ended"]


async def test_gpus_of_a_lost_node_stay_held_while_its_pod_cannot_be_confirmed_gone(
    world: JobsWorld, client: Client
) -> None:
    """Incident 8: a finalizer stands for the kubelet that does not answer any more."""
    job_id = await start(world, client)
    await kube(world).set_finalizers(f"gpu-dev-{job_id}-1", ["gpudev.test/node"])
    await world.capacity_says(LeaseRevoked(job_id=job_id, epoch=1, reason="node is gone"))
    await until_status(client, job_id, "failed")
    await start(world, client)  # takes the worker several looks at both
    assert await world.announced(job_id) == ["submitted", "preparing", "started", "lost"]
    await kube(world).set_finalizers(f"gpu-dev-{job_id}-1", [])

    async def ended() -> bool:
        return (await world.announced(job_id))[-1] == "ended"

    await eventually(ended, "its pod is confirmed gone")
    assert await nothing_left(world, job_id)


async def test_the_place_in_line_and_the_estimate_are_shown_and_old_news_dropped(
    world: JobsWorld, client: Client
) -> None:
    job_id = await world.submit(client)
    await world.publish(JobQueued(job_id=job_id, gpu_type="h100", position=2, reason="GPUs are in use"), sequence=5)
    await world.publish(JobQueued(job_id=job_id, gpu_type="h100", position=9), sequence=4)
    await start(world, client)
    job = await job_of(client, job_id)
    assert (job["queue_position"], job["status_reason"]) == (2, "GPUs are in use")
    assert await world.announced(job_id) == ["submitted"]


async def test_a_job_whose_disk_comes_late_is_ready_then(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    await world.update(job_id, "status = 'pending'")
    claimed = DiskClaimed(
        disk_id=uuid4(), user_id=1, disk_name="d", job_id=job_id, volume_id="vol-1", availability_zone="az1"
    )
    await world.publish(claimed, sequence=1)
    job = await until_status(client, job_id, "queued")
    assert job["ebs_volume_id"] == "vol-1"
    assert await world.announced(job_id) == ["submitted", "ready"]
    ready = (await world.events(job_id))[-1]
    assert msgspec.json.decode(ready.data, type=JobReady).availability_zone == "az1"


async def test_a_job_whose_disk_never_comes_fails_with_the_reason(world: JobsWorld, client: Client) -> None:
    job_id = await world.submit(client)
    await world.update(job_id, "status = 'pending'")
    failed = DiskOperationFailed(
        disk_id=uuid4(), user_id=1, disk_name="d", operation_id=None, action="claim", error="no space", job_id=job_id
    )
    await world.publish(failed, sequence=1)
    assert (await until_status(client, job_id, "failed"))["failure_reason"] == "no space"
    assert await world.announced(job_id) == ["submitted", "ended"]


async def test_what_no_job_has_is_swept(world: JobsWorld, client: Client) -> None:
    kept = await start(world, client)
    stranger = uuid4()
    meta = {
        "name": "gpu-dev-left-over",
        "labels": {"app.kubernetes.io/managed-by": "gpudev", "gpudev/job-id": str(stranger), "gpudev/epoch": "1"},
    }
    await world.cluster.ensure_secret({"apiVersion": "v1", "kind": "Secret", "metadata": meta})
    await eventually(lambda: nothing_left(world, stranger), "the orphan is gone")
    assert len(await world.objects(kept)) == 3


async def test_what_no_job_has_is_left_alone_and_counted_by_a_sweep_that_only_reports(world: JobsWorld) -> None:
    """After a restore the rows are older than the cluster: what they do not know may be somebody's job."""
    stranger = uuid4()
    meta = {
        "name": "gpu-dev-unknown",
        "labels": {"app.kubernetes.io/managed-by": "gpudev", "gpudev/job-id": str(stranger), "gpudev/epoch": "1"},
    }
    await world.cluster.ensure_secret({"apiVersion": "v1", "kind": "Secret", "metadata": meta})
    count = ORPHANS.labels("secrets")

    async def counted() -> bool:
        return bool(count._value.get() > 0)

    async with world.service(sweep="report", sweep_seconds=0.1):
        for _ in range(2):  # the second sweep comes after all that the first one does
            count.set(0)
            await eventually(counted, "the orphan is counted")
    assert len(await world.objects(stranger)) == 1
    async with world.service("olga", sweep="report") as operator:
        shown = (await operator.get("/v1/orphans/cluster")).json()
    (orphan,) = [one for one in shown["orphans"] if one["name"] == "gpu-dev-unknown"]
    assert list(orphan) == ["kind", "name", "finding", "message", "job_id", "since"]
    assert (orphan["kind"], orphan["finding"], orphan["job_id"]) == ("secrets", "orphan", str(stranger))
    assert datetime.fromisoformat(orphan["since"]) <= datetime.fromisoformat(shown["looked_at"])
    assert "GPUDEV_SWEEP is report" in orphan["message"]
    assert shown["total"] == len(shown["orphans"])
    async with world.service("alice", sweep="report") as user:
        assert (await user.get("/v1/orphans/cluster")).json() == {"detail": "Only operators may look for orphans"}
    by_operators = {command.name: command for command in commands(world.context(), world.cluster)}
    begin_act(Act(action="sweep"))
    line = f"secrets  gpu-dev-unknown  job {stranger}"
    assert line in (await by_operators["list-orphans"].run(Namespace())).splitlines()
    assert len(await world.objects(stranger)) == 1
    assert f"{line}  deleted" in (await by_operators["sweep"].run(Namespace())).splitlines()
    await eventually(lambda: nothing_left(world, stranger), "the orphan is gone")
    entries = (await audit_endpoint(world.database)(AuditQuery(limit=50, object="gpu-dev-unknown"))).entries
    assert [(one.action, one.object_kind, one.username) for one in entries] == [("sweep", "secrets", None)]
