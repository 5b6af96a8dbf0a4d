"""A disk's whole life through the ingress: what one job writes, the next one reads."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.support.stack import ApiUser, LocalStack, running_stack, until, users

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


LOOKS = 3
"""What is on a disk is looked at for two seconds, and told within one: on a machine that takes longer it is missed, and
is told after the next job."""


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    """A stack without anybody else's volumes."""
    with running_stack() as running:
        yield running


@pytest.fixture
async def user(stack: LocalStack) -> AsyncIterator[ApiUser]:
    async with users(stack, "dora") as (made,):
        yield made


async def call(user: ApiUser, method: str, path: str, status: int, **body: Any) -> dict[str, Any]:
    answer = await user.client.request(method, f"/v1/disks{path}", json=body or None)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def created(user: ApiUser, name: str, **fields: Any) -> str:
    """A disk that is there; its operation."""
    operation_id = str((await call(user, "POST", "", 200, disk_name=name, size_gb=10, **fields))["operation_id"])

    async def completed() -> bool:
        operation = await call(user, "GET", f"/{name}/operations/{operation_id}", 200)
        return operation["status"] == "completed"

    await until(completed, f"{name} is there")
    return operation_id


async def backed_up(user: ApiUser, name: str, count: int) -> None:
    async def counted() -> bool:
        disk = await call(user, "GET", f"/{name}", 200)
        return disk["snapshot_count"] == count and not disk["is_backing_up"]

    await until(counted, f"{name} has {count} snapshots")


async def run(user: ApiUser, disk: str, command: str) -> str:
    """A job with the disk, to its good end; its id."""
    job = await user.wait(await user.submit(disk_name=disk, gpu_count=1, command=command))
    assert (job["status"], job["exit_code"]) == ("completed", 0), job
    return str(job["job_id"])


async def test_a_disk_keeps_what_jobs_write_until_it_is_purged(stack: LocalStack, user: ApiUser) -> None:
    operation_id = await created(user, "data")
    await run(user, "data", 'echo kept > "$GPUDEV_ROOT/home/dev/file"')
    await backed_up(user, "data", 1)
    for count in range(2, 2 + LOOKS):
        last = await run(user, "data", 'test "$(cat "$GPUDEV_ROOT/home/dev/file")" = kept')
        await backed_up(user, "data", count)
        content = await call(user, "GET", "/data/content", 200)
        if content["missed_after_job"] is None:
            break
    assert [(entry["path"], entry["size_bytes"]) for entry in content["entries"]] == [("file", 5)]
    assert (content["message"], content["listed_after_job"], content["missed_after_job"]) == (None, last, None)
    assert content["listed_at"]

    renamed = await call(user, "POST", "/data/rename", 200, new_name="renamed")
    assert renamed["snapshots_updated"] == count
    for name in ("data", "renamed"):
        for asked in (operation_id, renamed["operation_id"]):
            assert (await call(user, "GET", f"/{name}/operations/{asked}", 200))["completed"]

    holder = await user.submit(disk_name="renamed", gpu_count=1, command="sleep 300")
    await user.wait(holder, "active")
    assert holder in (await call(user, "POST", "/renamed/rename", 409, new_name="other"))["detail"]
    assert holder in (await call(user, "DELETE", "/renamed", 409))["detail"]
    (volume,) = stack.cluster_api().list_persistent_volume().items
    assert volume.status.phase == "Bound"
    for more in range(1, 1 + LOOKS):
        await user.client.post(f"/v1/jobs/{holder}/cancel")
        await user.wait(holder)
        await backed_up(user, "renamed", count + more)
        listed = await call(user, "GET", "/renamed/content", 200)
        if listed["listed_after_job"] == holder or more == LOOKS:
            break
        assert listed["missed_after_job"] == holder
        holder = await user.submit(disk_name="renamed", gpu_count=1, command="sleep 300")
        await user.wait(holder, "active")
    assert listed["listed_after_job"] == holder, "its pod ran, and was asked"

    async def no_volume() -> bool:
        return not (await asyncio.to_thread(stack.cluster_api().list_persistent_volume)).items

    await until(no_volume, "the volume is out of the cluster")

    first = await call(user, "GET", "/renamed", 200)
    deleted = await call(user, "DELETE", "/renamed", 200)
    shown = await call(user, "GET", "/renamed", 200)
    assert shown["is_deleted"]
    assert deleted["message"].endswith(f"Will be deleted on {shown['delete_date']}")
    await created(user, "renamed")
    second = await call(user, "GET", "/renamed", 200)
    assert second["disk_id"] != first["disk_id"]
    await call(user, "POST", "/renamed/restore", 409)
    # the clock moved: it would be kept for thirty days
    await stack.execute("disks", "UPDATE disks SET purge_at = now() WHERE id = $1", first["disk_id"])

    async def purged() -> bool:
        listed = await call(user, "GET", "?include_deleted=true", 200)
        ids = {disk["disk_id"] for disk in listed["disks"]}  # the other test's disks may be among them
        return second["disk_id"] in ids and first["disk_id"] not in ids

    await until(purged, "the first disk is purged", seconds=60)
    assert not (await call(user, "GET", "/renamed", 200))["is_deleted"]


async def test_a_disk_begins_with_the_files_of_the_restore_point_that_it_is_made_from(user: ApiUser) -> None:
    await created(user, "source")
    await run(user, "source", 'echo one > "$GPUDEV_ROOT/home/dev/file"')
    await backed_up(user, "source", 1)
    await run(user, "source", 'echo two > "$GPUDEV_ROOT/home/dev/file"')
    await backed_up(user, "source", 2)
    await call(user, "POST", "/source/rename", 200, new_name="moved")

    points = (await call(user, "GET", "/moved/snapshots", 200))["snapshots"]
    for name, point, text in (("newest", points[0], "two"), ("oldest", points[1], "one")):
        await created(user, name, from_snapshot=point["snapshot_id"])
        await run(user, name, f'test "$(cat "$GPUDEV_ROOT/home/dev/file")" = {text}')
        await backed_up(user, name, 1)
