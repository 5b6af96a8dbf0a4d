"""`gpudev mcp` as a coding agent uses it, over its standard input and output."""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.client.scripted import Answerer, Scripted, says, scripted
from tests.client.test_command import ACTIVE, DONE, JOB, ROOT, Person

READING = {
    "list_jobs",
    "get_job",
    "explain_job",
    "get_job_history",
    "get_job_logs",
    "gpu_availability",
    "cluster_status",
    "list_disks",
    "get_disk_content",
    "list_disk_snapshots",
}
WRITING = {
    "submit_job",
    "cancel_job",
    "extend_job",
    "create_disk",
    "create_disk_snapshot",
    "delete_disk",
    "restore_disk",
}
OPEN = {
    **ACTIVE,
    "jupyter_enabled": True,
    "jupyter_token": "s3cret",
    "jupyter_url": "http://10.0.0.1:31000/lab?token=s3cret",
}


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@asynccontextmanager
async def agent(person: Person, *options: str) -> AsyncIterator[Client]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "client" / "src"),
        "XDG_CONFIG_HOME": str(person.config.parent),
        "HOME": str(person.config.parent),
    }
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "gpudev", "mcp", *options], env=environment, cwd=str(ROOT)
    )
    async with Client(command, read_timeout_seconds=60) as client:
        yield client


@asynccontextmanager
async def logged_in(person: Person, *answers: Answerer) -> AsyncIterator[Scripted]:
    async with scripted(*answers) as server:
        person.hold_key(server.url)
        yield server


async def test_without_leave_to_write_an_agent_can_only_read(person: Person) -> None:
    async with logged_in(person, DONE) as server, agent(person) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        refused = await client.call_tool("cancel_job", {"job": JOB})
    assert tools.keys() == READING
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools.values())
    assert refused.is_error
    assert server.seen == []


async def test_with_leave_it_can_write_and_is_told_what_ends_things(person: Person) -> None:
    async with logged_in(person, DONE) as server, agent(person, "--allow-write") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        done = await client.call_tool("cancel_job", {"job": JOB, "reason": "enough"})
    assert tools.keys() == READING | WRITING
    ending = {name for name, tool in tools.items() if tool.annotations and tool.annotations.destructive_hint}
    assert ending == {"cancel_job", "delete_disk"}
    assert done.structured_content is not None
    assert done.structured_content["status"] == "succeeded"
    assert [(one["method"], one["path"]) for one in server.seen] == [("POST", f"/v1/jobs/{JOB}/cancel?reason=enough")]


async def test_the_secrets_of_a_job_are_in_no_answer(person: Person) -> None:
    page = says({"jobs": [OPEN], "total": 1})
    async with logged_in(person, says(OPEN), page) as server, agent(person) as client:
        one = await client.call_tool("get_job", {"job": JOB})
        every = await client.call_tool("list_jobs")
    assert len(server.seen) == 2
    for answer in (one, every):
        assert not answer.is_error
        assert "s3cret" not in answer.model_dump_json()
        assert JOB in answer.model_dump_json()


async def test_what_is_refused_says_what_to_do(person: Person) -> None:
    detail = says({"detail": "Job not found"}, 404)
    async with logged_in(person, detail), agent(person) as client:
        answer = await client.call_tool("get_job", {"job": JOB})
    assert answer.is_error
    assert "Job not found. `gpudev list` and `gpudev disk list` show what there is." in answer.model_dump_json()


async def test_who_is_not_logged_in_is_told_to(person: Person) -> None:
    async with agent(person) as client:
        answer = await client.call_tool("cluster_status")
    assert answer.is_error
    assert "gpudev login" in answer.model_dump_json()


async def test_a_key_is_never_said(person: Person) -> None:
    echo = says({"detail": "Invalid API key"}, 401)
    async with logged_in(person, echo), agent(person) as client:
        answer = await client.call_tool("cluster_status")
    key = json.loads((person.config / "key.json").read_text())["api_key"]
    assert answer.is_error
    assert key not in answer.model_dump_json()
