"""From login to a running job and back, as a user does it."""

import asyncio
import os
import re
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.contract_document import quick_start
from tests.support.load import cluster_objects, parse_last_json, shell
from tests.support.promises import promised
from tests.support.stack import ApiUser, LocalStack, read_events, running_stack, until, users


def quickstart() -> str:
    """The contract's script from "Get API key" on, without its line that names production."""
    script = quick_start()
    script = script[script.index("# 2. Get API key") :]
    return re.sub(r"^API_URL=.*$", "", script, flags=re.MULTILINE)


async def test_the_contracts_quick_start_ends_in_an_active_job(stack: LocalStack) -> None:
    assert shutil.which("jq"), "install jq: the contract's script needs it"
    environment = {**os.environ, **stack.exports()}
    async with users(stack, "demo") as (demo,):
        with promised(5):
            output = await asyncio.to_thread(shell, quickstart(), environment=environment)
            job = parse_last_json(output)
            assert job["status"] in {"queued", "preparing", "active"}
            active = await demo.wait(job["job_id"], "active")
        assert (active["gpu_type"], active["gpu_count"], active["duration_hours"]) == ("h100", 8, 4.0)
        assert await asyncio.to_thread(cluster_objects, stack)
        await demo.client.post(f"/v1/jobs/{job['job_id']}/cancel")
        ended = await demo.wait(job["job_id"], "cancelled")
        assert ended["ended_at"] is not None


async def counted(user: ApiUser) -> dict[str, dict[str, Any]]:
    """Availability but for the time of what it counts."""
    found = await user.availability()
    return {name: {**entry, "as_of": None} for name, entry in found.items()}


async def test_a_command_decides_how_its_job_ends(stack: LocalStack) -> None:
    async with users(stack, "alice") as (alice,):
        before = await counted(alice)
        failing = await alice.submit(command="echo hello; exit 3")
        succeeding = await alice.submit(command="exit 0", instance_type="p4d.24xlarge", gpu_count=2)
        failed, completed = await alice.wait(failing, "failed"), await alice.wait(succeeding, "completed")
        assert (failed["exit_code"], completed["exit_code"]) == (3, 0)
        assert failed["failure_reason"]

        async def as_before() -> bool:
            return await counted(alice) == before

        await until(as_before, "availability at its start value")
        events = await read_events(stack)
        assert [name for name in events.of(failing) if name.startswith("jobs.")] == [
            "jobs.submitted",
            "jobs.preparing",
            "jobs.started",
            "jobs.ended",
        ]


async def test_a_job_sees_its_environment_and_nothing_of_ours(stack: LocalStack, tmp_path: Path) -> None:
    secret = "wandb-key-0123456789"
    stack.secrets.add(secret)
    target = tmp_path / "environment"
    async with users(stack, "alice") as (alice,):
        job_id = await alice.submit(command=f"env > {target}", env_vars={"WANDB_API_KEY": secret, "EXPERIMENT": "v1"})
        job = await alice.wait(job_id, "completed")
    lines = target.read_text().splitlines()
    assert f"WANDB_API_KEY={secret}" in lines
    assert not [line for line in lines if line.startswith(("GPUDEV_DATABASE", "GPUDEV_NATS", "AWS_"))]
    assert sorted(job["env_var_names"]) == ["EXPERIMENT", "WANDB_API_KEY"]
    assert secret not in str(job)
    assert secret not in str((await read_events(stack)).events)


async def test_another_users_job_looks_like_none(stack: LocalStack) -> None:
    async with users(stack, "alice", "bob") as (alice, bob):
        job_id = await alice.submit(command="sleep 300", gpu_count=1)
        for method, path in (("GET", "/v1/jobs/{}"), ("POST", "/v1/jobs/{}/cancel")):
            others = await bob.client.request(method, path.format(job_id))
            missing = await bob.client.request(method, path.format("00000000-0000-4000-8000-000000000000"))
            assert (others.status_code, others.json()) == (missing.status_code, missing.json())
            assert others.status_code == 404
        assert job_id not in (await bob.client.get("/v1/jobs")).text
        await alice.client.post(f"/v1/jobs/{job_id}/cancel")
        await alice.wait(job_id, "cancelled")


async def test_a_job_waits_for_its_disk_and_gives_it_back(stack: LocalStack) -> None:
    async with users(stack, "alice") as (alice,):
        job_id = await alice.submit(command="sleep 300", gpu_count=1, disk_name="data", disk_size_gb=20)
        await alice.wait(job_id, "active")
        second = await alice.client.post(
            "/v1/jobs/submit",
            json={"image": "debian:12", "instance_type": "p5.48xlarge", "disk_name": "data"},
        )
        assert second.status_code == 409, second.text
        disk = (await alice.client.get("/v1/disks/data")).json()
        assert (disk["in_use"], disk["reservation_id"], disk["size_gb"]) == (True, job_id, 20)
        await alice.client.post(f"/v1/jobs/{job_id}/cancel")
        await alice.wait(job_id, "cancelled")

        async def free() -> bool:
            return not (await alice.client.get("/v1/disks/data")).json()["in_use"]

        await until(free, "the disk given back")


async def test_a_created_disk_becomes_ready(stack: LocalStack) -> None:
    async with users(stack, "alice") as (alice,):
        asked = await alice.client.post("/v1/disks", json={"disk_name": "scratch", "size_gb": 30})
        assert asked.status_code == 200, asked.text
        path = f"/v1/disks/scratch/operations/{asked.json()['operation_id']}"

        async def completed() -> bool:
            return bool((await alice.client.get(path)).json()["completed"])

        await until(completed, "the operation completed")
        assert (await alice.client.get(path)).json()["error"] is None


@pytest.mark.long
@pytest.mark.timeout(300)
def test_state_outlives_the_stack_and_even_its_killing() -> None:
    with running_stack() as stack:
        job_id, active = asyncio.run(_one_job(stack))
        assert active["status"] == "active"
        assert stat.S_IMODE(stack.state.env.stat().st_mode) == 0o600
        stack.stop()
        assert not stack.state.env.exists()
        stack.start()
        again = asyncio.run(_job(stack, job_id))
        assert again["created_at"] == active["created_at"]
        pids = [part.pid for part in stack.parts().values()]
        for pid in pids:
            os.killpg(pid, signal.SIGKILL)
        assert stack._process is not None
        os.kill(stack._process.pid, signal.SIGKILL)
        stack._process.wait()
        stack.state.env.unlink()
        stack.start()
        last = asyncio.run(_cancelled(stack, job_id))
        assert last["status"] == "cancelled"


async def _one_job(stack: LocalStack) -> tuple[str, dict[str, object]]:
    async with users(stack, "alice") as (alice,):
        job_id = await alice.submit(gpu_count=1)
        return job_id, await alice.wait(job_id, "active")


async def _job(stack: LocalStack, job_id: str) -> dict[str, object]:
    async with users(stack, "alice") as (alice,):
        return await alice.job(job_id)


async def _cancelled(stack: LocalStack, job_id: str) -> dict[str, object]:
    async with users(stack, "alice") as (alice,):
        answer = await alice.client.post(f"/v1/jobs/{job_id}/cancel")
        assert answer.status_code == 200, answer.text
        return await alice.wait(job_id, "cancelled")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/health", "/health/auth", "/health/capacity"])
async def test_public_pages_answer_without_a_key(stack: LocalStack, path: str) -> None:
    async with users(stack, "demo") as (demo,):

        async def well() -> bool:
            return (await demo.client.get(path, headers={"Authorization": ""})).status_code == 200

        await until(well, path)
