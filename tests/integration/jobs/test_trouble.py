"""What the cluster does to a job's pod, and what the job's owner reads of it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from aiohttp import web

from services.jobs.adapters.kubernetes import Cluster, ClusterUnavailable
from services.jobs.workers.orphans import OrphanSweeper
from tests.support.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, body, job_of, kube, new_disk_claimed, until_status

NO_QUOTA = 'pods "gpu-dev" is forbidden: exceeded quota: gpus, requested: 1, used: 8, limited: 8'


@pytest.fixture
async def proxy(world: JobsWorld, tmp_path: Path) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(Path(world.settings.kubeconfig or ""), tmp_path) as proxy:
        yield proxy


async def start(world: JobsWorld, client: Client, **changes: object) -> UUID:
    job_id = await world.submit(client, **changes)
    await world.grant(job_id)
    await until_status(client, job_id, "active")
    return job_id


async def until(client: Client, job_id: UUID, field: str, words: str, *, seconds: float = 60.0) -> dict[str, Any]:
    """Wait until a field of the job holds the words; the job then."""
    last: dict[str, Any] = {}

    async def reached() -> bool:
        last.update(await job_of(client, job_id))
        return words in str(last[field])

    await eventually(reached, f"{field} tells {words!r}", seconds=seconds)
    return last


async def test_an_idle_job_that_runs_out_of_memory_says_so_and_goes_on(world: JobsWorld, client: Client) -> None:
    job_id = await start(world, client)
    await kube(world).run_out_of_memory(f"gpu-dev-{job_id}-1")
    job = await until(client, job_id, "status_reason", "ran out of memory")
    assert job["status"] == "active"
    assert await world.announced(job_id) == ["submitted", "preparing", "started", "restarted"]


async def test_a_command_that_hides_that_it_ran_out_of_memory_has_failed(world: JobsWorld, client: Client) -> None:
    job_id = await start(world, client, command="sleep 600")
    ended = {"name": "main", "image": "", "imageID": "", "ready": False, "restartCount": 0}
    state = {"terminated": {"exitCode": 0, "reason": "OOMKilled"}}
    status = {"phase": "Succeeded", "containerStatuses": [{**ended, "state": state}]}
    await kube(world).set_pod_status(f"gpu-dev-{job_id}-1", status)
    job = await until_status(client, job_id, "failed")
    assert "ran out of memory" in job["failure_reason"]
    assert job["exit_code"] is None


async def test_a_job_longer_than_jobs_may_be_is_refused_at_submit(world: JobsWorld) -> None:
    async with world.service(max_total_hours=24) as client:
        refused = await client.post("/v1/jobs/submit", json=body(duration_hours=24.5))
        assert refused.status_code == 400
        [problem] = refused.json()["detail"]
        assert (problem["loc"], problem["type"]) == (["body", "duration_hours"], "less_than_equal")
        assert "at most 24 hours" in problem["msg"]
        assert (await client.post("/v1/jobs/submit", json=body(duration_hours=24))).status_code == 200


@pytest.mark.parametrize("kind", ["pods", "secrets", "services"])
async def test_what_a_quota_refuses_is_told_at_once_and_fails_the_job_after_a_while(
    world: JobsWorld, proxy: FaultProxy, kind: str
) -> None:
    def quota(request: web.Request) -> Fault | None:
        is_new = request.method == "POST" and request.path.endswith(f"/{kind}")
        return Fault(status=403, reason="Forbidden", message=NO_QUOTA) if is_new else None

    proxy.rule = quota
    async with world.service(kubeconfig=str(proxy.kubeconfig), refusal_seconds=3.0) as client:
        job_id = await world.submit(client)
        await world.grant(job_id)
        job = await until(client, job_id, "status_reason", "exceeded quota")
        assert job["status"] == "preparing"
        job = await until_status(client, job_id, "failed")
        assert NO_QUOTA in job["failure_reason"]
        assert (await world.announced(job_id))[-1] == "ended"  # GPUs are given back on it
        assert not await world.objects(job_id)


async def test_a_refusal_that_passes_is_forgotten(world: JobsWorld, proxy: FaultProxy) -> None:
    proxy.rule = lambda request: (
        Fault(status=403, reason="Forbidden", message=NO_QUOTA)
        if request.method == "POST" and request.path.endswith("/pods")
        else None
    )
    async with world.service(kubeconfig=str(proxy.kubeconfig)) as client:
        job_id = await world.submit(client)
        await world.grant(job_id)
        await until(client, job_id, "status_reason", "exceeded quota")
        proxy.rule = lambda _: None
        job = await until_status(client, job_id, "active")
        assert job["status_reason"] is None


async def test_credentials_that_expire_are_read_again(world: JobsWorld, proxy: FaultProxy, tmp_path: Path) -> None:
    """A kubeconfig with an exec plugin, as clusters of the cloud have it."""
    token = tmp_path / "token"
    token.write_text("first")
    credential = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}'
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "/bin/sh",
        "args": ["-c", f"printf '{credential}' \"$(cat {token})\""],
        "interactiveMode": "Never",
    }
    document = yaml.safe_load(proxy.kubeconfig.read_text())
    document["users"][0]["user"] = {"exec": plugin}
    proxy.kubeconfig.write_text(yaml.safe_dump(document))

    def guarded(request: web.Request) -> Fault | None:
        known = request.headers.get("Authorization") == f"Bearer {token.read_text()}"
        return None if known else Fault(status=401, reason="Unauthorized")

    proxy.rule = guarded
    async with world.service(kubeconfig=str(proxy.kubeconfig)) as client:
        job_id = await start(world, client, command="echo hello; sleep 600")
        assert (await client.get(f"/v1/jobs/{job_id}/logs")).status_code == 200
        token.write_text("second")
        answer = await client.get(f"/v1/jobs/{job_id}/logs")
        assert (answer.status_code, answer.text) == (200, "hello\n")
        await client.post(f"/v1/jobs/{job_id}/cancel")
        await until_status(client, job_id, "cancelled")


async def test_a_volume_that_cannot_be_mounted_says_so(world: JobsWorld, client: Client) -> None:
    async with world.disks_answering(new_disk_claimed("?")):
        job_id = await world.submit(client, disk_name="data")
    await world.grant(job_id)
    job = await until(client, job_id, "status_reason", "cannot be mounted")
    assert job["status"] == "preparing"
    assert "FailedMount" in job["current_detailed_status"]
    assert (await client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200


async def test_a_drained_node_is_named_as_what_ended_its_job(world: JobsWorld, client: Client) -> None:
    job_id = await start(world, client)
    await kube(world).drain(world.node, f"gpu-dev-{job_id}-1")
    try:
        job = await until_status(client, job_id, "failed")
        assert "node was drained" in job["failure_reason"]
    finally:
        await kube(world).uncordon(world.node)


@pytest.mark.parametrize("kind", ["services", "secrets"])
async def test_what_belongs_to_a_running_job_is_made_again_when_someone_deletes_it(
    world: JobsWorld, client: Client, kind: str
) -> None:
    job_id = await start(world, client, env_vars={"COLOUR": "red"})
    name = f"gpu-dev-{job_id}-1"
    before = await world.cluster.find_object(kind, name)
    assert before is not None
    await world.cluster.delete_object(kind, name)

    async def there() -> bool:
        found = await world.cluster.find_object(kind, name)
        return found is not None and found.uid != before.uid

    await eventually(there, "it is there again")
    assert (await job_of(client, job_id))["status"] == "active"

    async def shown() -> bool:
        service = await world.cluster.find_service(name)
        return service is not None and service.node_ports["ssh"] == (await job_of(client, job_id))["node_port"]

    await eventually(shown, "the job shows the port that leads to it")
    await client.post(f"/v1/jobs/{job_id}/cancel")
    await until_status(client, job_id, "cancelled")
    assert not await world.objects(job_id)


async def test_a_service_that_leads_elsewhere_is_made_anew(world: JobsWorld, client: Client) -> None:
    job_id = await start(world, client)
    name = f"gpu-dev-{job_id}-1"
    await kube(world).change_service(name, {"spec": {"selector": {"gpudev/job-id": "another"}}})

    async def right() -> bool:
        service = await world.cluster.find_service(name)
        return service is not None and service.spec.selector["gpudev/job-id"] == str(job_id)

    await eventually(right, "it leads to the job again")


async def test_a_running_job_whose_service_cannot_be_made_again_says_so(world: JobsWorld, proxy: FaultProxy) -> None:
    async with world.service(kubeconfig=str(proxy.kubeconfig)) as client:
        job_id = await start(world, client)
        proxy.rule = lambda request: (
            Fault(status=403, reason="Forbidden", message=NO_QUOTA)
            if request.method == "POST" and request.path.endswith("/services")
            else None
        )
        await world.cluster.delete_object("services", f"gpu-dev-{job_id}-1")
        job = await until(client, job_id, "status_reason", "exceeded quota")
        assert (job["status"], job["node_port"]) == ("active", None)
        proxy.rule = lambda _: None

        async def reachable() -> bool:
            return (await job_of(client, job_id))["node_port"] is not None

        await eventually(reachable, "it has an address again")


async def test_a_kind_that_may_not_be_listed_leaves_the_sweep_of_the_others(
    world: JobsWorld, proxy: FaultProxy
) -> None:
    stranger = uuid4()
    meta = {
        "name": "gpu-dev-forsaken",
        "labels": {"app.kubernetes.io/managed-by": "gpudev", "gpudev/job-id": str(stranger), "gpudev/epoch": "1"},
    }
    await world.cluster.ensure_secret({"apiVersion": "v1", "kind": "Secret", "metadata": meta})

    def refuse(request: web.Request) -> Fault | None:
        return Fault(status=403, reason="Forbidden") if request.path.endswith("/services") else None

    proxy.rule = refuse
    cluster = Cluster(kubeconfig=str(proxy.kubeconfig), namespace=world.settings.namespace)
    try:
        with pytest.raises(ClusterUnavailable):
            await OrphanSweeper(world.context(), cluster).sweep()
    finally:
        await cluster.close()
    assert await world.objects(stranger) == []
