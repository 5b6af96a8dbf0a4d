"""Keys and Jupyter, brought by exec over WebSockets into pods that hold the tools."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest

from services.jobs import storage
from services.jobs.adapters.kubernetes import Cluster
from services.jobs.adapters.kubernetes.exec_channel import ExecResult
from services.jobs.domain.job import Job
from services.jobs.domain.job_host import ingress_manifest
from services.jobs.domain.pod_policy import PodPolicy
from services.jobs.operations.access import add_user, switch_jupyter
from services.jobs.operations.orphans import delete_orphan, find_orphans
from services.jobs.workers import access_keeper
from services.jobs.workers.access_keeper import PASS_SECONDS, AccessKeeper
from shared.leased_worker import Budget
from tests.support.crash import Crash
from tests.support.harness import eventually
from tests.support.jobs import Client, JobsWorld, github_of, job_of, later, until_status
from tests.support.servers import ClusterSimulator
from tests.support.tools_pods import Keys, Tools, key_pages

ALICE, BOB, CAROL = (f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{letter * 43}" for letter in "ABC")
HELD = {"Prefer": "wait=30"}


@pytest.fixture
async def keys(jobs_world: JobsWorld) -> AsyncIterator[Keys]:
    async with key_pages(jobs_world, alice=ALICE, bob=BOB, carol=CAROL) as keys:
        yield keys


@pytest.fixture
async def world(jobs_world: JobsWorld, keys: Keys) -> JobsWorld:
    """Whose services ask that page of keys."""
    assert not keys.asked
    return jobs_world


@pytest.fixture
async def client(world: JobsWorld) -> AsyncIterator[Client]:
    """Of a replica that gives up after two seconds what it cannot bring into a pod."""
    async with world.service(access_seconds=2.0) as client:
        yield client


async def start(world: JobsWorld, client: Client, simulator: ClusterSimulator) -> tuple[UUID, Tools]:
    """An active job that alice's key opens, and the tools in its pod."""
    job_id = await world.submit(client, github_user="alice")
    await world.grant(job_id)
    await until_status(client, job_id, "active")
    await eventually(lambda: asked_for_host_keys(world, job_id), "the keys of its SSH server were asked for")
    tools = Tools.take_over(simulator, (await world.row(job_id))["pod_uid"])
    assert ALICE in tools.authorized_keys
    return job_id, tools


async def asked_for_host_keys(world: JobsWorld, job_id: UUID) -> bool:
    return (await world.row(job_id))["ssh_host_keys"] is not None


async def ask(client: Client, job_id: UUID, action: str, **body: str) -> dict[str, Any]:
    """The answer once the outcome is known."""
    answer = await client.post(f"/v1/jobs/{job_id}/{action}", json=body or None, headers=HELD)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def add(client: Client, job_id: UUID, name: str) -> dict[str, Any]:
    return await ask(client, job_id, "users", github_username=name)


async def test_an_added_users_keys_open_the_pod_beside_those_that_did(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, tools = await start(world, client, cluster_simulator)
    assert (await add(client, job_id, "bob"))["status"] == "succeeded"
    assert ALICE in tools.authorized_keys
    assert BOB in tools.authorized_keys
    job = await job_of(client, job_id)
    assert (job["secondary_users"], job["access_error"]) == (["bob"], None)
    assert await world.announced(job_id) == ["submitted", "preparing", "started", "user_requested", "user_added"]


async def test_a_job_without_a_github_user_says_why_it_has_no_ssh_command(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id = await world.submit(client)
    told = (await job_of(client, job_id))["access_error"]
    assert f"POST /v1/jobs/{job_id}/users" in told
    await world.grant(job_id)
    job = await until_status(client, job_id, "active")
    assert (job["ssh_command"], job["access_error"]) == (None, told)
    Tools.take_over(cluster_simulator, (await world.row(job_id))["pod_uid"])
    assert (await world.row(job_id))["ssh_host_keys"] is None, "nobody can enter whom they would concern"
    assert (await add(client, job_id, "bob"))["status"] == "succeeded"
    await eventually(lambda: asked_for_host_keys(world, job_id), "the keys of its SSH server were asked for")
    job = await job_of(client, job_id)
    assert (job["ssh_command"], job["access_error"]) == (f"ssh -p {job['node_port']} dev@{job['node_ip']}", None)


async def test_a_name_that_github_does_not_know_is_refused_with_the_reason_and_touches_no_pod(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, tools = await start(world, client, cluster_simulator)
    told = await add(client, job_id, "nobody")
    reason = "GitHub has no user of this name"
    assert (told["status"], told["message"]) == ("refused", f"nobody was not added: {reason}")
    job = await job_of(client, job_id)
    assert (job["secondary_users"], job["access_error"]) == ([], f"nobody: {reason}")
    assert tools.calls("keys") == 0


@pytest.mark.parametrize("name", ["bob; touch x", "$(touch x)", "../bob", "bob\n", "-bob", "", "b" * 40])
async def test_what_is_no_name_is_refused_before_anyone_is_asked(
    world: JobsWorld, client: Client, keys: Keys, name: str
) -> None:
    job_id = await world.submit(client)
    answer = await client.post(f"/v1/jobs/{job_id}/users", json={"github_username": name})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (400, ["body", "github_username"])
    assert keys.asked == []
    assert await world.announced(job_id) == ["submitted"]


async def test_keys_that_cannot_be_brought_in_are_tried_again_and_then_refused_with_the_programs_words(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, tools = await start(world, client, cluster_simulator)
    tools.let("keys", "fail")
    told = await add(client, job_id, "bob")
    assert (told["status"], told["message"]) == ("refused", "bob was not added: the disk is full")
    assert tools.calls("keys") > 1
    job = await job_of(client, job_id)
    assert (job["status"], job["secondary_users"], job["access_error"]) == ("active", [], "bob: the disk is full")
    tools.let("keys", None)
    assert (await add(client, job_id, "bob"))["status"] == "succeeded"
    assert BOB in tools.authorized_keys
    assert (await job_of(client, job_id))["access_error"] is None


async def test_a_call_that_hangs_is_given_up_and_repeated(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_keeper, "_KEYS_SECONDS", 1.0)
    job_id, tools = await start(world, client, cluster_simulator)
    tools.let("keys", "hang")
    asked = asyncio.create_task(add(client, job_id, "bob"))
    await eventually(lambda: tools.hung, "the call hangs")
    tools.let("keys", None)
    assert (await asked)["status"] == "succeeded"
    assert BOB in tools.authorized_keys
    tools.let("keys", "hang")
    told = await add(client, job_id, "carol")
    assert told["message"] == "carol was not added: The job's pod could not be reached"
    assert (await job_of(client, job_id))["secondary_users"] == ["bob"]


async def test_github_away_delays_a_user_and_the_job_says_so(
    world: JobsWorld, client: Client, keys: Keys, cluster_simulator: ClusterSimulator
) -> None:
    job_id, tools = await start(world, client, cluster_simulator)
    keys.status = 503
    asked = asyncio.create_task(add(client, job_id, "bob"))

    async def delayed() -> bool:
        told = (await job_of(client, job_id))["access_error"]
        return bool(told == "bob: GitHub could not be reached, it is tried again")

    await eventually(delayed, "the delay is told")
    keys.status = 200
    assert (await asked)["status"] == "succeeded"
    assert BOB in tools.authorized_keys
    assert (await job_of(client, job_id))["access_error"] is None


async def test_two_asked_for_at_once_are_both_added_and_one_asked_for_twice_only_once(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, tools = await start(world, client, cluster_simulator)
    async with world.service() as other:
        told = await asyncio.gather(
            add(client, job_id, "bob"),
            add(other, job_id, "carol"),
            add(client, job_id, "BOB"),
            add(other, job_id, "bob"),
        )
    assert {answer["status"] for answer in told} == {"succeeded"}
    assert all(key in tools.authorized_keys for key in (ALICE, BOB, CAROL))
    assert sorted(name.lower() for name in (await job_of(client, job_id))["secondary_users"]) == ["bob", "carol"]
    names = await world.announced(job_id)
    assert (names.count("user_requested"), names.count("user_added")) == (2, 2)


async def test_jupyter_is_switched_on_off_and_on_again_with_another_token(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, tools = await start(world, client, cluster_simulator)
    tokens = []
    for _ in range(2):
        assert (await ask(client, job_id, "jupyter/enable"))["status"] == "succeeded"
        job = await job_of(client, job_id)
        tokens.append(job["jupyter_token"])
        assert tools.jupyter == f'{{"token":"{tokens[-1]}"}}'
        assert job["jupyter_url"].endswith(f":{job['jupyter_port']}/lab?token={tokens[-1]}")
        assert (await ask(client, job_id, "jupyter/disable"))["status"] == "succeeded"
        job = await job_of(client, job_id)
        assert (job["jupyter_enabled"], job["jupyter_url"], job["jupyter_token"]) == (False, None, None)
        assert tools.jupyter is None
    assert tokens[0] != tokens[1]
    on_and_off = ["jupyter_requested", "jupyter_enabled", "jupyter_requested", "jupyter_disabled"]
    assert await world.announced(job_id) == ["submitted", "preparing", "started", *on_and_off, *on_and_off]


async def test_operators_who_list_a_job_do_not_read_its_token(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, _ = await start(world, client, cluster_simulator)
    assert (await ask(client, job_id, "jupyter/enable"))["status"] == "succeeded"
    token = (await job_of(client, job_id))["jupyter_token"]
    async with world.service("olga") as operator:
        listed = await operator.get("/v1/jobs?user=*")
    assert [(job["job_id"], job["jupyter_token"]) for job in listed.json()["jobs"]] == [(str(job_id), None)]
    assert token not in listed.text


async def test_jupyter_that_does_not_start_is_told_with_the_programs_words_and_may_be_asked_for_again(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, tools = await start(world, client, cluster_simulator)
    tools.let("jupyter", "fail")
    told = await ask(client, job_id, "jupyter/enable")
    assert (told["status"], told["message"]) == ("refused", "Jupyter was not started: the disk is full")
    job = await job_of(client, job_id)
    assert (job["jupyter_enabled"], job["jupyter_url"], job["jupyter_error"]) == (False, None, "the disk is full")
    tools.let("jupyter", None)
    assert (await ask(client, job_id, "jupyter/enable"))["status"] == "succeeded"
    assert (await job_of(client, job_id))["jupyter_error"] is None


async def test_what_jupyter_says_is_shown_as_a_short_printable_line_without_any_of_its_token(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    """The token stands where the line is cut."""
    job_id, tools = await start(world, client, cluster_simulator)
    tools.let("jupyter start", "babble")
    assert (await ask(client, job_id, "jupyter/enable"))["status"] == "refused"
    assert (await job_of(client, job_id))["jupyter_error"] == f"[2J  {'0' * 270}…{'0' * 24}"


async def test_jupyter_asked_for_twice_at_once_is_started_once_and_opposite_wishes_end_as_the_last_one(
    world: JobsWorld, client: Client, cluster_simulator: ClusterSimulator
) -> None:
    job_id, tools = await start(world, client, cluster_simulator)
    async with world.service() as other:
        told = await asyncio.gather(ask(client, job_id, "jupyter/enable"), ask(other, job_id, "jupyter/enable"))
        assert {answer["status"] for answer in told} == {"succeeded"}
        token = (await job_of(client, job_id))["jupyter_token"]
        assert tools.jupyter == f'{{"token":"{token}"}}'
        assert (await world.announced(job_id)).count("jupyter_requested") == 1
        for action in ("disable", "enable", "disable"):
            await client.post(f"/v1/jobs/{job_id}/jupyter/{action}")

        async def settled() -> bool:
            return storage.jobs.to_job(await world.row(job_id)).jupyter_applied == 4

        await eventually(settled, "the last wish is in effect")
    assert tools.jupyter is None
    assert (await job_of(client, job_id))["jupyter_enabled"] is False


async def test_the_token_and_the_keys_are_in_no_log_and_no_event(
    world: JobsWorld, cluster_simulator: ClusterSimulator, logged: Callable[[], str]
) -> None:
    async with world.service(log_level="debug") as client:
        job_id, tools = await start(world, client, cluster_simulator)
        await ask(client, job_id, "jupyter/enable")
        await add(client, job_id, "bob")
        token = (await job_of(client, job_id))["jupyter_token"]
        tools.let("jupyter", "fail")
        await ask(client, job_id, "jupyter/disable")
        written = logged()
    assert "job_access" in written, "nothing was logged: the test proves nothing"
    events = repr(await world.events(job_id))
    for secret in (token, BOB.split()[1], ALICE.split()[1]):
        assert secret not in written
        assert secret not in events
    assert token not in repr(dict(await world.row(job_id)))


class CrashAfterExec(Cluster):
    """Runs the program, and is no more when it has run."""

    async def exec_in_pod(self, name: str, argv: list[str], *, stdin: bytes | None, seconds: float) -> ExecResult:
        await super().exec_in_pod(name, argv, stdin=stdin, seconds=seconds)
        raise Crash


async def test_a_worker_killed_between_the_call_and_its_record_is_followed_by_another_to_the_same_end(
    world: JobsWorld, keys: Keys, cluster_simulator: ClusterSimulator
) -> None:
    async with world.service() as client:
        job_id, tools = await start(world, client, cluster_simulator)
    dying = CrashAfterExec(kubeconfig=world.settings.kubeconfig, namespace=world.settings.namespace)
    context, github = world.context(), github_of(world)
    asked = {"user_id": 1, "job_id": str(job_id), "key": None, "now": later(), "context": context}

    async def work(cluster: Cluster) -> Job:
        job = storage.jobs.to_job(await world.row(job_id))
        return (await AccessKeeper(context, cluster, github).work(job, Budget(PASS_SECONDS))).job

    try:
        await add_user(**asked, name="bob")
        with pytest.raises(Crash):
            await work(dying)
        assert BOB in tools.authorized_keys
        assert (await work(world.cluster)).secondary_users == ["bob"]
        await switch_jupyter(**asked, wanted=True)
        with pytest.raises(Crash):
            await work(dying)
        started_with = tools.jupyter
        job = await work(world.cluster)
    finally:
        await dying.close()
        await github.close()
    assert (job.jupyter_enabled, job.wants_access_work) == (True, False)
    assert tools.jupyter == started_with
    assert (tools.calls("keys"), tools.calls("jupyter start"), keys.asked) == (2, 2, ["alice", "bob"])
    names = ["user_requested", "user_added", "jupyter_requested", "jupyter_enabled"]
    assert await world.announced(job_id) == ["submitted", "preparing", "started", *names]


async def test_the_ingress_of_a_jobs_host_is_made_again_goes_with_the_job_and_is_an_orphan_without_one(
    world: JobsWorld, cluster_simulator: ClusterSimulator
) -> None:
    cluster = world.cluster
    async with world.service(job_domain="jobs.test", job_url="https://{host}/lab?token={token}") as client:
        job_id, _ = await start(world, client, cluster_simulator)
        name = f"gpu-dev-{job_id}-1"
        assert (await ask(client, job_id, "jupyter/enable"))["status"] == "succeeded"
        job = await job_of(client, job_id)
        assert job["jupyter_url"] == f"https://{str(job_id)[:8]}.jobs.test/lab?token={job['jupyter_token']}"
        before = await cluster.find_object("ingresses", name)
        assert before is not None
        await cluster.delete_object("ingresses", name)

        async def again() -> bool:
            found = await cluster.find_object("ingresses", name)
            return found is not None and found.uid != before.uid

        await eventually(again, "it is there again")
        assert not await find_orphans(world.context(), cluster, "ingresses")
        await client.post(f"/v1/jobs/{job_id}/cancel")
        await until_status(client, job_id, "cancelled")
        assert await cluster.find_object("ingresses", name) is None
    ended = storage.jobs.to_job(await world.row(job_id))
    policy = PodPolicy(tools_image="tools:1", job_domain="jobs.test")
    manifest = ingress_manifest(ended, policy, "gone")
    assert manifest is not None
    del manifest["metadata"]["ownerReferences"]  # else the cluster itself sees to it
    await cluster.ensure_ingress(manifest)
    (orphan,) = await find_orphans(world.context(), cluster, "ingresses")
    assert await delete_orphan(world.context(), cluster, "ingresses", orphan)
    assert await cluster.find_object("ingresses", orphan.name) is None
