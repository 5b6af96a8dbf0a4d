"""Jobs that end by another's hand, as their owner and the cluster see it."""

import asyncio
from pathlib import Path

import pytest

from tests.support.load import cluster_objects
from tests.support.ssh import paste
from tests.support.stack import LocalStack, until, users

pytestmark = pytest.mark.timeout(180)


async def test_the_jobs_of_a_disabled_user_end_and_so_does_all_that_is_open(stack: LocalStack) -> None:
    async with users(stack, "expelled") as (user,):
        running = await user.submit(gpu_count=1, github_user="expelled")
        ssh_command = (await user.wait(running, "active"))["ssh_command"]
        key = stack.state.github / "expelled"
        assert (await paste(ssh_command, "true", key=key)).code == 0
        session = asyncio.create_task(paste(ssh_command, "touch begun; sleep 300", key=key))
        await until(lambda: has_begun(ssh_command, key), "the session is open")
        waiting = await user.submit(
            gpu_count=8, instance_type="p4d.24xlarge", image="docker.io/library/does-not-exist:1"
        )
        await user.wait(waiting, "queued", "preparing")
        user_id = await stack.user_id("expelled")
        open_jobs = (await stack.admin("jobs", "list-jobs", user_id)).splitlines()
        assert [line.split()[0] for line in open_jobs] == [running, waiting]
        assert open_jobs[0].split()[1] == "active"
        assert (await stack.admin("auth", "disable-user", user_id)).endswith("keys revoked: 1")
        assert await stack.admin("jobs", "list-jobs", user_id, "--wait", "60") == f"User {user_id} has no open job"
        assert (await session).code != 0
        assert (await paste(ssh_command, "true", key=key)).code == 255
        left = await asyncio.to_thread(cluster_objects, stack)
        assert not [name for name in left if running in name or waiting in name]
        assert (await user.client.get(f"/v1/jobs/{running}")).status_code == 403
        await stack.admin("auth", "enable-user", user_id)
    async with users(stack, "expelled") as (again,):
        for job_id in (running, waiting):
            job = await again.job(job_id)
            assert (job["status"], job["status_reason"]) == ("cancelled", "Cancelled because its user was disabled")
        history = (await again.client.get(f"/v1/jobs/{running}/history")).json()
        assert "disabled" in str(history)


async def has_begun(ssh_command: str, key: Path) -> bool:
    return (await paste(ssh_command, "test -e begun", key=key)).code == 0


async def test_an_operator_cancels_anothers_job_and_its_owner_reads_why(stack: LocalStack) -> None:
    async with users(stack, "owner", "stranger", "operator") as (owner, stranger, operator):
        job_id = await owner.submit(gpu_count=1)
        await owner.wait(job_id, "active")
        path = f"/v1/jobs/{job_id}/cancel"
        for other, who in ((stranger, path), (operator, f"/v1/jobs/{job_id[:8]}/cancel")):
            assert (await other.client.post(who)).status_code == 404
        answer = await operator.client.post(path, params={"reason": "the node needs a new disk"})
        assert (answer.status_code, answer.json()["action"]) == (200, "cancel")
        job = await owner.wait(job_id, "cancelled")
        assert job["status_reason"] == "Cancelled by an operator: the node needs a new disk"
        assert (await operator.client.get(f"/v1/jobs/{job_id}")).status_code == 404
