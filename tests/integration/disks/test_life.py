"""The life of a disk between jobs, over the routes: snapshots, content, rename, deletion, restore, purge."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
import sqlalchemy as sa

from services.disks.settings import DisksSettings
from services.disks.storage.tables import operations
from shared.contracts.disks import (
    DiskDeleted,
    DiskPurged,
    DiskRenamed,
    DiskRestored,
    DiskSnapshotCompleted,
    DiskSnapshotDeleted,
    DiskSnapshotStarted,
    Listing,
    ListingEntry,
)
from shared.database import Database, Statement
from tests.support.disks import Stage, User, disks_stage, now
from tests.support.harness import eventually
from tests.support.servers import MotoServer

OPERATION = "operation_id"
_ENDED_AT = Statement(
    sa.update(operations).where(operations.c.id == sa.bindparam("id")).values(updated_at=sa.bindparam("at"))
)


async def made(disks: Stage, user: User, name: str, **body: Any) -> str:
    """A disk whose volume is there; its id."""
    answer = await disks.create(user, name, **body)
    operation = await disks.ended_operation(user, name, answer["operation_id"])
    assert operation["status"] == "completed", operation
    disk_id: str = operation["disk_id"]
    return disk_id


async def post(disks: Stage, user: User, path: str, **body: Any) -> Any:
    return await disks.client.post(f"/v1/disks{path}", json=body or None, headers=user.headers)


async def delete(disks: Stage, user: User, name: str) -> Any:
    return await disks.client.delete(f"/v1/disks/{name}", headers=user.headers)


async def a_job_uses(disks: Stage, user: User, name: str, listing: Listing | None = None) -> UUID:
    """A job that had a pod, from its claim to its end."""
    job = uuid4()
    claim = (await disks.jobs.claim(user, name, job_id=job)).claim
    assert claim is not None
    await disks.jobs.submitted(user, job, claim.disk_id)

    async def told() -> bool:
        return bool((await disks.get(user, f"/{name}")).json()["reservation_id"] == str(job))

    await eventually(told, "the claim holds")
    if listing is not None:
        assert await disks.jobs.tell_content(job, claim.disk_id, listing)
    await disks.jobs.ended(user, job, epoch=1)
    return job


async def backed_up(disks: Stage, user: User, name: str, count: int) -> dict[str, Any]:
    async def shown() -> Any:
        disk = (await disks.get(user, f"/{name}")).json()
        return disk if disk["snapshot_count"] == count and not disk["is_backing_up"] else None

    found: dict[str, Any] = await eventually(shown, f"{name} has {count} snapshots")
    return found


async def test_the_end_of_a_job_leaves_a_restore_point(disks: Stage) -> None:
    user = disks.auth.add_user()
    disk_id = await made(disks, user, "data", size_gb=20)

    job = await a_job_uses(disks, user, "data")
    await backed_up(disks, user, "data", 1)

    listed = (await disks.get(user, "/data/snapshots")).json()
    assert listed["total"] == 1
    (point,) = listed["snapshots"]
    assert (point["reservation_id"], point["size_gb"], point["state"]) == (str(job), 20, "completed")
    (snapshot,) = await disks.snapshots(user)
    assert point["ebs_snapshot_id"] == snapshot["SnapshotId"]
    assert {tag["Key"]: tag["Value"] for tag in snapshot["Tags"]} == {
        "gpudev:disk-id": disk_id,
        "gpudev:operation-id": point["snapshot_id"],
        "gpudev:user-id": str(user.user_id),
        "Name": "data",
    }
    started = await disks.event(disk_id, DiskSnapshotStarted)
    completed = await disks.event(disk_id, DiskSnapshotCompleted)
    assert started.job_id == completed.job_id == job
    operation = (await disks.get(user, f"/data/operations/{point['snapshot_id']}")).json()
    assert (operation["status"], operation["action"]) == ("completed", "snapshot")


async def test_a_job_without_a_pod_leaves_none(disks: Stage) -> None:
    user, job = disks.auth.add_user(), uuid4()
    await made(disks, user, "data")
    claim = (await disks.jobs.claim(user, "data", job_id=job)).claim
    assert claim is not None
    await disks.jobs.submitted(user, job, claim.disk_id)
    await disks.jobs.ended(user, job)

    async def freed() -> bool:
        return (await disks.get(user, "/data")).json()["last_used"] is not None

    await eventually(freed, "the disk is free")
    assert (await disks.get(user, "/data/snapshots")).json() == {"snapshots": [], "total": 0}


async def test_a_disk_is_being_backed_up_from_the_end_of_its_job_until_aws_has_done_it(
    disks: Stage, moto_server: MotoServer
) -> None:
    user = disks.auth.add_user()
    await made(disks, user, "data")
    moto_server.process.stop()
    try:
        await a_job_uses(disks, user, "data")

        async def released() -> Any:
            disk = (await disks.get(user, "/data")).json()
            return None if disk["in_use"] else disk

        waiting = await eventually(released, "the job has given it back")
        refused = [await delete(disks, user, "data"), await post(disks, user, "/data/snapshots")]
    finally:
        moto_server.process.start()

    assert (waiting["is_backing_up"], waiting["snapshot_count"]) == (True, 0)
    assert [(answer.status_code, answer.json()["detail"]) for answer in refused] == [
        (409, "Disk 'data' is being backed up")
    ] * 2
    await backed_up(disks, user, "data", 1)


async def test_restore_points_that_need_not_be_kept_go_from_aws_and_the_last_one_stays(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    one = msgspec.structs.replace(disks_settings, snapshots_newest=0, snapshots_weeks=0)
    async with disks_stage(one, disks_database, moto_server.client("ec2")) as disks:
        user = disks.auth.add_user()
        disk_id = await made(disks, user, "data")
        first, second = [
            (await disks.ended_operation(user, "data", (await post(disks, user, "/data/snapshots")).json()[OPERATION]))
            for _ in range(2)
        ]

        deleted = await disks.event(disk_id, DiskSnapshotDeleted)

        assert str(deleted.operation_id) == first[OPERATION]
        (left,) = await disks.snapshots(user)
        listed = (await disks.get(user, "/data/snapshots")).json()["snapshots"]
        assert [(p["snapshot_id"], p["ebs_snapshot_id"]) for p in listed] == [(second[OPERATION], left["SnapshotId"])]
        assert (await disks.get(user, "/data")).json()["snapshot_count"] == 1


async def test_an_operation_is_known_for_90_days(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    async with disks_stage(disks_settings, disks_database, moto_server.client("ec2")) as disks:
        user = disks.auth.add_user()
        old, young = [(await disks.create(user, name))[OPERATION] for name in ("old", "young")]
        for name, operation_id in (("old", old), ("young", young)):
            await disks.ended_operation(user, name, operation_id)
    for operation_id, days in ((old, 91), (young, 89)):
        await disks_database.execute(_ENDED_AT, id=UUID(operation_id), at=now() - timedelta(days=days))
    async with disks_stage(disks_settings, disks_database, moto_server.client("ec2")) as disks:
        disks.auth.know(user)

        async def forgotten() -> bool:
            return (await disks.get(user, f"/old/operations/{old}")).status_code == 404

        await eventually(forgotten, "what ended 91 days ago is forgotten")
        assert (await disks.get(user, f"/young/operations/{young}")).json()["completed"]
        assert (await disks.get(user, "")).json()["total"] == 2


async def test_a_disk_can_begin_from_a_restore_point_of_ones_own(disks: Stage) -> None:
    user, other = disks.auth.add_user(), disks.auth.add_user()
    await made(disks, user, "data", size_gb=30)
    asked = (await post(disks, user, "/data/snapshots")).json()
    assert asked["action"] == "snapshot"
    assert (await disks.ended_operation(user, "data", asked["operation_id"]))["status"] == "completed"
    point = asked["operation_id"]

    await made(disks, user, "copy", from_snapshot=point)
    small = await post(disks, user, "", disk_name="small", size_gb=20, from_snapshot=point)
    unknown = await post(disks, other, "", disk_name="stolen", from_snapshot=str(uuid4()))

    (snapshot,) = await disks.snapshots(user)
    await made(disks, user, "larger", from_snapshot=snapshot["SnapshotId"], size_gb=40)
    made_from = {v["Size"]: v.get("SnapshotId") for v in await disks.volumes(user) if v.get("SnapshotId")}
    assert made_from == {30: snapshot["SnapshotId"], 40: snapshot["SnapshotId"]}
    assert small.status_code == 400
    assert unknown.status_code == 404
    for theirs in (point, snapshot["SnapshotId"]):
        stolen = await post(disks, other, "", disk_name="stolen", from_snapshot=theirs)
        assert (stolen.status_code, stolen.content) == (404, unknown.content)


async def test_a_renamed_disk_keeps_its_operations_under_both_names(disks: Stage) -> None:
    user = disks.auth.add_user()
    answer = await disks.create(user, "old")
    disk_id = (await disks.ended_operation(user, "old", answer["operation_id"]))["disk_id"]
    await made(disks, user, "taken")
    await a_job_uses(disks, user, "old")
    await backed_up(disks, user, "old", 1)

    renamed = await post(disks, user, "/old/rename", new_name="new")

    body = renamed.json()
    assert list(body) == ["message", "old_name", "new_name", "snapshots_updated", "operation_id"]
    assert body["message"] == "Disk renamed from 'old' to 'new' (1 snapshots updated)"
    assert (await disks.get(user, "/old")).status_code == 404
    for name in ("old", "new"):
        for operation_id in (answer["operation_id"], body["operation_id"]):
            assert (await disks.get(user, f"/{name}/operations/{operation_id}")).json()["status"] == "completed"
    (snapshot,) = await disks.snapshots(user)
    assert {"Key": "Name", "Value": "new"} in snapshot["Tags"]
    assert (await disks.event(disk_id, DiskRenamed)).old_name == "old"
    later = (await post(disks, user, "/new/snapshots")).json()["operation_id"]
    assert (await disks.ended_operation(user, "old", later))["disk_name"] == "new"
    assert (await disks.get(user, f"/taken/operations/{later}")).status_code == 404
    bad = [await post(disks, user, "/new/rename", new_name=name) for name in ("a b", "taken", "new")]
    assert [answer.status_code for answer in bad] == [400, 409, 409]
    job = uuid4()
    await disks.jobs.claim(user, "new", job_id=job)
    in_use = await post(disks, user, "/new/rename", new_name="free")
    assert (in_use.status_code, str(job) in in_use.json()["detail"]) == (409, True)


async def test_a_rename_without_snapshots_says_so(disks: Stage) -> None:
    user = disks.auth.add_user()
    await made(disks, user, "old")

    body = (await post(disks, user, "/old/rename", new_name="new")).json()

    assert body["message"] == "Disk renamed from 'old' to 'new' (no snapshots found)"
    assert body["snapshots_updated"] == 0
    (volume,) = await disks.volumes(user)
    assert {"Key": "Name", "Value": "new"} in volume["Tags"]


async def test_a_repeated_rename_gets_the_first_answer(disks: Stage) -> None:
    user = disks.auth.add_user()
    await made(disks, user, "old")
    headers = {**user.headers, "Idempotency-Key": "once"}

    first = await disks.client.post("/v1/disks/old/rename", json={"new_name": "new"}, headers=headers)
    second = await disks.client.post("/v1/disks/old/rename", json={"new_name": "new"}, headers=headers)

    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"


async def test_a_deleted_disk_can_be_restored_while_its_name_is_free(disks: Stage) -> None:
    user, other = disks.auth.add_user(), disks.auth.add_user()
    disk_id = await made(disks, user, "data")

    deleted = await delete(disks, user, "data")

    day = (await disks.event(disk_id, DiskDeleted)).purge_at.date().isoformat()
    assert deleted.json()["message"] == f"Disk deletion request queued successfully. Will be deleted on {day}"
    shown = (await disks.get(user, "/data")).json()
    assert (shown["is_deleted"], shown["delete_date"]) == (True, day)
    operation = (await disks.get(user, f"/data/operations/{deleted.json()['operation_id']}")).json()
    assert (operation["completed"], operation["is_deleted"], operation["delete_date"]) == (True, True, day)
    assert (await disks.get(user, "")).json()["total"] == 0
    assert (await disks.get(user, "?include_deleted=true")).json()["total"] == 1
    again, renamed = await delete(disks, user, "data"), await post(disks, user, "/data/rename", new_name="x")
    snapshot = await post(disks, user, "/data/snapshots")
    assert [again.status_code, renamed.status_code, snapshot.status_code] == [410, 410, 410]
    for answer in (await delete(disks, other, "data"), await post(disks, other, "/data/restore")):
        assert answer.status_code == 404

    await made(disks, user, "data")
    taken = await post(disks, user, "/data/restore")
    assert (taken.status_code, "named 'data' since" in taken.json()["detail"]) == (409, True)
    assert (await post(disks, user, "/data/rename", new_name="second")).status_code == 200
    assert (await post(disks, user, "/data/restore")).status_code == 200
    await disks.event(disk_id, DiskRestored)
    assert (await disks.get(user, "/data")).json()["disk_id"] == disk_id
    assert (await post(disks, user, "/data/restore")).status_code == 409


async def test_a_disk_that_is_needed_is_not_deleted(disks: Stage) -> None:
    user, job = disks.auth.add_user(), uuid4()
    await made(disks, user, "data")
    await disks.jobs.claim(user, "data", job_id=job)

    in_use = await delete(disks, user, "data")

    assert (in_use.status_code, str(job) in in_use.json()["detail"]) == (409, True)
    assert (await post(disks, user, "/data/snapshots")).status_code == 409
    assert (await delete(disks, user, "none")).status_code == 404


async def test_the_purge_takes_exactly_what_belongs_to_the_disk(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    hasty = msgspec.structs.replace(disks_settings, disk_retention_days=0.5 / 86400)
    async with disks_stage(hasty, disks_database, moto_server.client("ec2")) as disks:
        user = disks.auth.add_user()
        first = await made(disks, user, "data")
        await a_job_uses(disks, user, "data")
        await backed_up(disks, user, "data", 1)
        deletion = (await delete(disks, user, "data")).json()
        second = await made(disks, user, "data")
        await a_job_uses(disks, user, "data")
        await backed_up(disks, user, "data", 1)

        await disks.event(first, DiskPurged)

        assert [disk_of(volume) for volume in await disks.volumes(user)] == [second]
        assert [disk_of(snapshot) for snapshot in await disks.snapshots(user)] == [second]
        listed = (await disks.get(user, "?include_deleted=true")).json()["disks"]
        assert [disk["disk_id"] for disk in listed] == [second]
        operation = await disks.get(user, f"/data/operations/{deletion['operation_id']}")
        assert operation.json()["completed"]


def disk_of(resource: dict[str, Any]) -> str:
    return next(str(tag["Value"]) for tag in resource["Tags"] if tag["Key"] == "gpudev:disk-id")


async def test_what_is_on_a_disk_is_told_as_it_was_when_its_job_ended(disks: Stage) -> None:
    user, other = disks.auth.add_user(), disks.auth.add_user()
    await made(disks, user, "data")
    before = (await disks.get(user, "/data/content")).json()
    assert list(before)[:5] == ["disk_name", "content", "s3_path", "snapshot_date", "message"]
    assert (before["content"], before["s3_path"], before["snapshot_date"]) == (None, None, None)
    assert before["message"] == "No job has used this disk yet"

    entries = [ListingEntry("runs", "directory", 2048), ListingEntry("runs/a\nb", "file", 2048)]
    job = await a_job_uses(disks, user, "data", Listing(2048, entries))
    await backed_up(disks, user, "data", 1)
    shown = (await disks.get(user, "/data/content")).json()
    missed = await a_job_uses(disks, user, "data")
    await backed_up(disks, user, "data", 2)
    later = (await disks.get(user, "/data/content")).json()

    assert shown["content"] == "    2.0 KB  .\n    2.0 KB  runs/\n    2.0 KB  runs/a\\nb\n"
    assert (shown["size_bytes"], shown["truncated"], shown["reservation_id"]) == (2048, False, str(job))
    assert datetime.fromisoformat(shown["snapshot_date"]) <= datetime.now(UTC)
    assert shown["s3_path"] is None
    # clients take any message for that there is nothing
    assert (shown["message"], later["message"]) == (None, None)
    assert (before["listed_at"], before["listed_after_job"]) == (None, None)
    assert (shown["listed_at"], shown["listed_after_job"]) == (shown["snapshot_date"], str(job))
    assert (shown["missed_after_job"], later["missed_after_job"]) == (None, str(missed))
    assert later["content"] == shown["content"]
    assert (await disks.get(other, "/data/content")).status_code == 404


@pytest.mark.parametrize("size", ["9" * 330, "-1", '"many"', "1.5"])
async def test_a_listing_that_was_stored_and_is_none_is_no_error(disks: Stage, size: str) -> None:
    user = disks.auth.add_user()
    await made(disks, user, "data")
    job = await a_job_uses(disks, user, "data", Listing(2048, []))
    await backed_up(disks, user, "data", 1)
    await disks.database.execute(
        Statement(
            sa.text(
                "UPDATE contents SET listing = jsonb_set(listing, '{size_bytes}', "
                "CAST(CAST(:size AS text) AS jsonb)) WHERE job_id = CAST(:job_id AS uuid)"
            )
        ),
        size=size,
        job_id=job,
    )
    shown = await disks.get(user, "/data/content")
    assert shown.status_code == 200
    assert (shown.json()["content"], shown.json()["entries"]) == (None, [])
    assert str(job) in shown.json()["message"]


async def test_while_its_first_job_runs_a_disk_says_so(disks: Stage) -> None:
    user, job = disks.auth.add_user(), uuid4()
    await made(disks, user, "data")
    claim = (await disks.jobs.claim(user, "data", job_id=job)).claim
    assert claim is not None
    await disks.jobs.submitted(user, job, claim.disk_id)
    await disks.claimed_by(claim.disk_id, job)

    told = (await disks.get(user, "/data/content")).json()

    assert told["message"] == f"Job {job} is the first to use this disk: what is on it is listed when the job ends"
    assert told["content"] is None


async def test_a_listing_of_a_job_that_has_not_the_disk_is_not_kept(disks: Stage) -> None:
    user = disks.auth.add_user()
    disk_id = UUID(await made(disks, user, "data"))

    assert not await disks.jobs.tell_content(uuid4(), disk_id, Listing(1, []))
    assert not await disks.jobs.tell_content(uuid4(), uuid4(), Listing(1, []))


async def test_limits_are_told_and_deleted_disks_do_not_count(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    tight = msgspec.structs.replace(disks_settings, max_disks_per_user=2, max_disk_gb_per_user=100)
    async with disks_stage(tight, disks_database, moto_server.client("ec2")) as disks:
        user = disks.auth.add_user()
        await made(disks, user, "a", size_gb=60)

        large = await post(disks, user, "", disk_name="b", size_gb=50)
        assert (large.status_code, "100 GB" in large.json()["detail"]) == (409, True)
        await made(disks, user, "b", size_gb=40)
        many = await post(disks, user, "", disk_name="c", size_gb=10)
        assert (many.status_code, "2 is the limit" in many.json()["detail"]) == (409, True)
        refusal = (await disks.jobs.claim(user, "c", size_gb=10)).refusal
        assert refusal is not None
        assert refusal.kind == "conflict"
        await delete(disks, user, "a")
        await made(disks, user, "c", size_gb=10)
        assert (await post(disks, user, "/a/restore")).status_code == 409


async def test_a_job_on_a_disk_that_is_backed_up_is_told_when_that_is_done(disks: Stage) -> None:
    user, job = disks.auth.add_user(), uuid4()
    disk_id = UUID(await made(disks, user, "data"))
    await post(disks, user, "/data/snapshots")
    claim = (await disks.jobs.claim(user, "data", job_id=job)).claim
    assert claim is not None
    await disks.jobs.submitted(user, job, disk_id)

    await disks.claimed_by(disk_id, job)

    kinds = [event.type.split(".")[3] for event in await disks.events(disk_id)]
    assert kinds == ["created", "snapshot_started", "snapshot_completed", "claimed"]
