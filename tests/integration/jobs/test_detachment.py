"""The disk of a job that is over stays with it until Kubernetes says that no node has the volume any more."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web

from tests.support.fault_proxy import Fault, FaultProxy, Rule, fault_proxy
from tests.support.harness import eventually
from tests.support.jobs import JobsWorld, kube, new_disk_claimed, until_status

ATTACHMENTS = "/volumeattachments"


@pytest.fixture
async def world(jobs_world: JobsWorld) -> AsyncIterator[JobsWorld]:
    async with jobs_world.disks_answering(new_disk_claimed()):
        yield jobs_world


@pytest.fixture
async def proxy(world: JobsWorld, tmp_path: Path) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(Path(world.settings.kubeconfig or ""), tmp_path) as proxy:
        yield proxy


def page(*volumes: str, more: str = "") -> Fault:
    """Attachments of persistent volumes to nodes."""
    items = [{"spec": {"attacher": "ebs.csi.aws.com", "source": {"persistentVolumeName": name}}} for name in volumes]
    return Fault(lines=(json.dumps({"metadata": {"continue": more}, "items": items}).encode(),))


def attached(name: str) -> Rule:
    return lambda request: page("another", name) if request.path.endswith(ATTACHMENTS) else None


def attached_on_the_second_page(name: str) -> Rule:
    def rule(request: web.Request) -> Fault | None:
        if not request.path.endswith(ATTACHMENTS):
            return None
        return page(name) if request.query.get("continue") else page("another", more="there")

    return rule


def unknown(_: str) -> Rule:
    return lambda request: Fault(status=500) if request.path.endswith(ATTACHMENTS) else None


def throttled(_: str) -> Rule:
    return lambda request: Fault(status=429) if request.path.endswith(ATTACHMENTS) else None


def lost_on_the_way(_: str) -> Rule:
    """A 404, but not of Kubernetes."""
    return lambda request: Fault(status=404) if request.path.endswith(ATTACHMENTS) else None


@pytest.mark.parametrize("told", [attached, attached_on_the_second_page, unknown, throttled, lost_on_the_way])
async def test_the_end_of_a_job_waits_until_its_volume_is_known_to_be_detached(
    world: JobsWorld, proxy: FaultProxy, told: Callable[[str], Rule]
) -> None:
    """Incident 8: Kubernetes removes the pods of a dead node, whose volumes stay attached to it for minutes."""
    async with world.service(kubeconfig=str(proxy.kubeconfig)) as client:
        job_id: UUID = await world.submit(client, command="sleep 600", disk_name="home")
        await world.grant(job_id)
        await until_status(client, job_id, "active")
        proxy.rule = told(f"gpu-dev-{job_id}-1")

        await kube(world).give_gpus_back()

        await eventually(lambda: proxy.count("GET", ATTACHMENTS) >= 4, "the attachments are looked at again and again")
        assert "ended" not in await world.announced(job_id)
        proxy.rule = lambda request: page("another") if request.path.endswith(ATTACHMENTS) else None
        await until_status(client, job_id, "failed")
        assert (await world.announced(job_id))[-1] == "ended"


async def test_a_404_that_kubernetes_does_not_say_releases_no_disk(world: JobsWorld, proxy: FaultProxy) -> None:
    """Something in between answers 404 for whatever it does not know now."""
    async with world.service(kubeconfig=str(proxy.kubeconfig)) as client:
        job_id: UUID = await world.submit(client, command="sleep 600", disk_name="home")
        await world.grant(job_id)
        await until_status(client, job_id, "active")
        volume = f"/gpu-dev-{job_id}-1"

        def rule(request: web.Request) -> Fault | None:
            of_disk = "/persistentvolume" in request.path and request.path.endswith(volume)
            return Fault(status=404) if of_disk and request.method == "GET" else None

        proxy.rule = rule
        await kube(world).give_gpus_back()

        looks = proxy.count("GET", f"/persistentvolumeclaims{volume}")
        await eventually(
            lambda: proxy.count("GET", f"/persistentvolumeclaims{volume}") >= looks + 4,
            "it is looked at again and again",
        )
        assert "ended" not in await world.announced(job_id)
        proxy.rule = lambda _: None
        await until_status(client, job_id, "failed")
        assert (await world.announced(job_id))[-1] == "ended"
