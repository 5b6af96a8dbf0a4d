"""Jobs as places to work: SSH as it is pasted, collaborators, Jupyter."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kubernetes import client, config

from tests.support.notebook import Notebook
from tests.support.ssh import paste
from tests.support.stack import ApiUser, LocalStack, until, users

# What a shell or a path would take for something else than a name.
HOSTILE = ("bob; touch hacked", "$(touch hacked)", "`touch hacked`", "../bob", "bob\ntouch hacked", "-bob", "")


@asynccontextmanager
async def working(stack: LocalStack, **fields: Any) -> AsyncIterator[tuple[ApiUser, str]]:
    """A user with an active job for their own key."""
    async with users(stack, "demo") as (demo,):
        job_id = await demo.submit(gpu_count=1, github_user="demo", **fields)
        await demo.wait(job_id, "active")
        try:
            yield demo, job_id
        finally:
            await demo.client.post(f"/v1/jobs/{job_id}/cancel")
            await demo.wait(job_id, "cancelled")


async def call(user: ApiUser, job_id: str, action: str, **body: Any) -> dict[str, Any]:
    """An action whose outcome is waited for."""
    answer = await user.client.post(f"/v1/jobs/{job_id}/{action}", json=body, headers={"Prefer": "wait=30"})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_pasted_ssh_command_opens_the_job(stack: LocalStack) -> None:
    script = "echo printed; echo made > here; sleep 300"
    async with working(stack, command=script, env_vars={"COLOUR": "red and blue"}) as (demo, job_id):
        command = (await demo.job(job_id))["ssh_command"]
        told = await paste(command, 'pwd; id -u; echo "$COLOUR"; echo "$HOME"; cat here; exit 7')
        assert told.code == 7
        where, number, colour, home, made = told.output.splitlines()
        assert where.endswith("/home/dev")
        assert home == where
        assert (number, colour, made) == (str(os.getuid()), "red and blue", "made")
        log = await paste(command, 'cat "$GPUDEV_ROOT/gpudev/run/command.log"')
        assert log.output == "printed\n"
        assert (await paste(command.replace("dev@", "root@"), "true")).code == 255


async def test_files_on_a_jobs_disk_are_at_home(stack: LocalStack) -> None:
    async with working(stack, disk_name="home", disk_size_gb=10) as (demo, job_id):
        command = (await demo.job(job_id))["ssh_command"]
        told = await paste(command, 'echo "$HOME"; echo kept > ~/file; cat "$GPUDEV_ROOT/home/dev/file"')
        assert told.output.splitlines()[0].endswith("/home/dev")
        assert told.output.splitlines()[1] == "kept"


async def test_a_second_users_key_opens_the_job_once_he_is_added(stack: LocalStack) -> None:
    await asyncio.to_thread(stack.identity, "bob")
    key = stack.state.github / "bob"
    async with working(stack) as (demo, job_id):
        command = (await demo.job(job_id))["ssh_command"]
        assert (await paste(command, "true", key=key)).code == 255
        for name in HOSTILE:
            refused = await demo.client.post(f"/v1/jobs/{job_id}/users", json={"github_username": name})
            assert refused.status_code == 400, name
            assert refused.json()["detail"][0]["loc"] == ["body", "github_username"]
        unknown = await call(demo, job_id, "users", github_username="nobody-here")
        assert (unknown["status"], unknown["message"]) == (
            "refused",
            "nobody-here was not added: GitHub has no user of this name",
        )
        assert (await call(demo, job_id, "users", github_username="bob"))["status"] == "succeeded"
        assert (await paste(command, "true", key=key)).code == 0
        assert (await paste(command, "true", key=stack.state.github / "demo")).code == 0
        job = await demo.job(job_id)
        assert job["secondary_users"] == ["bob"]
        assert job["access_error"] == "nobody-here: GitHub has no user of this name"
        assert not list(stack.state.root.rglob("hacked"))


@pytest.mark.timeout(240)
async def test_jupyter_is_enabled_used_disabled_and_enabled_anew(stack: LocalStack) -> None:
    async with working(stack, env_vars={"COLOUR": "red"}) as (demo, job_id):
        assert (await call(demo, job_id, "jupyter/enable"))["status"] == "succeeded"
        first = Notebook((await demo.job(job_id))["jupyter_url"])
        await until(first.answers, "the ingress knows the host")
        assert await first.status(token="guess") == 403
        code = "import os; print(os.environ['COLOUR'], os.path.samefile('.', os.environ['HOME']))"
        assert await first.run_cell(code) == "red True\n"

        assert (await call(demo, job_id, "jupyter/disable"))["status"] == "succeeded"
        assert await first.status() == 502, "the ingress finds nobody behind the job's host"
        assert (await demo.job(job_id))["jupyter_url"] is None

        assert (await call(demo, job_id, "jupyter/enable"))["status"] == "succeeded"
        second = Notebook((await demo.job(job_id))["jupyter_url"])
        assert second.token != first.token
        await until(second.answers, "it answers anew")
        assert await second.status(token=first.token) == 403


async def test_a_job_of_an_unknown_github_user_runs_and_says_why_he_has_no_access(stack: LocalStack) -> None:
    async with users(stack, "demo") as (demo,):
        job_id = await demo.submit(gpu_count=1, github_user="nobody-here")
        await demo.wait(job_id, "active")

        async def told() -> bool:
            return "GitHub has no user of this name" in str((await demo.job(job_id))["access_error"])

        await until(told, "the reason on the job")
        await demo.client.post(f"/v1/jobs/{job_id}/cancel")
        await demo.wait(job_id, "cancelled")


def ingresses_of(stack: LocalStack, job_id: str) -> list[Any]:
    api = client.NetworkingV1Api(config.new_client_from_config(stack.exports()["KUBECONFIG"]))
    return [one for one in api.list_ingress_for_all_namespaces().items if job_id in one.metadata.name]


@pytest.mark.timeout(240)
async def test_jupyter_of_each_job_has_a_host_of_its_own(stack: LocalStack) -> None:
    async with working(stack) as (demo, job_id):
        assert (await call(demo, job_id, "jupyter/enable"))["status"] == "succeeded"
        url = (await demo.job(job_id))["jupyter_url"]
        assert url.startswith(f"http://{job_id[:8]}.localhost:{stack.port}/lab?token=")
        notebook = Notebook(url)
        await until(notebook.answers, "the ingress knows the host")
        assert await notebook.run_cell("print(6 * 7)") == "42\n"
        assert await notebook.run_in_terminal("echo of the terminal") == "of the terminal"
        (ingress,) = ingresses_of(stack, job_id)
        (owner,) = ingress.metadata.owner_references
        assert (owner.kind, owner.name) == ("Pod", ingress.metadata.name)
        chosen = job_id[:8] + str(uuid.uuid4())[8:]
        refused = await demo.client.post(
            "/v1/jobs/submit",
            json={
                "image": "debian:12",
                "instance_type": "p5.48xlarge",
                "gpu_count": 1,
                "env_vars": {"RESERVATION_ID": chosen},
            },
        )
        assert refused.status_code == 409, "who chooses an id by another's job would share its host"

    async def gone() -> bool:
        return not ingresses_of(stack, job_id)

    await until(gone, "the Ingress went with the pod")
