"""The command line in a process of its own, against a server that answers as a test tells it."""

import json
import os
import sys
import tomllib
from asyncio.subprocess import PIPE
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import typer
from aiohttp import web

from gpudev.cli import app, job_options
from shared.contracts.catalogue import CATALOGUE
from tests.client.scripted import Answerer, says, scripted, streams
from tests.client.test_exchange import ACTIVE, ENDED, SUBMITTED
from tests.support.programs import outcome, shown_on

ROOT = Path(__file__).parents[2]
JOB = SUBMITTED["job_id"]
OTHER = {**ACTIVE, "job_id": "77777777-93a4-4cfb-a2a5-6f2b2b6ad0f1", "name": "other"}
NAMED = {**ACTIVE, "name": "training"}
DONE = says({"job_id": JOB, "action": "cancel", "status": "succeeded", "message": "ok"})
KEYS = says({"keys": [], "total": 0})


def jobs(*found: dict[str, Any]) -> Answerer:
    return says({"jobs": list(found), "total": len(found)})


def login(hours: float = 2.0) -> Answerer:
    return says(
        {**new_key("gpudev_first_secret", hours), "aws_arn": "arn:aws:sts::1:assumed-role/R/ann", "ttl_hours": 2}
    )


def new_key(key: str, hours: float) -> dict[str, Any]:
    ends = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    prefix = key.rsplit("_", 1)[0]
    return {"api_key": key, "key_prefix": prefix, "user_id": 1, "username": "ann", "expires_at": ends}


class Person:
    """Somebody at a shell."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config" / "gpudev"

    async def run(
        self, *arguments: str, out: int = PIPE, beside: int = PIPE, **environment: str
    ) -> tuple[int, str, str]:
        """Exit code, output, and what was told beside it."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("GPUDEV_", "AWS_"))}
        given = {
            "PYTHONPATH": str(ROOT / "client" / "src"),
            "XDG_CONFIG_HOME": str(self.config.parent),
            "TZ": "UTC",
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(self.config.parent),
        }
        command = (sys.executable, "-m", "gpudev", *arguments)
        code, output, told = await outcome(*command, env={**plain, **given, **environment}, stdout=out, stderr=beside)
        return code, output.decode(), told.decode()

    async def log_in(self, url: str, *options: str, **environment: str) -> tuple[int, str, str]:
        """With credentials as the shell has them."""
        aws = {"AWS_ACCESS_KEY_ID": "ASIA1", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_SESSION_TOKEN": "t0ken"}
        return await self.run("login", "--url", url, *options, **aws, **environment)

    def hold_key(self, url: str) -> None:
        """As after a log-in."""
        told = {**new_key("gpudev_first_secret", 2), "url": url, "obtained_at": datetime.now(UTC).isoformat()}
        self.config.mkdir(parents=True, exist_ok=True)
        (self.config / "key.json").write_text(json.dumps(told))

    @property
    def key(self) -> dict[str, Any]:
        return dict(json.loads((self.config / "key.json").read_text()))

    def age(self, *, minutes_left: float) -> None:
        """The key as it will be later."""
        now = datetime.now(UTC)
        times = {"obtained_at": now - timedelta(hours=2), "expires_at": now + timedelta(minutes=minutes_left)}
        told = {**self.key, **{name: moment.isoformat() for name, moment in times.items()}}
        (self.config / "key.json").write_text(json.dumps(told))


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


async def test_a_key_is_kept_for_its_user_alone_and_never_shown(person: Person) -> None:
    async with scripted(login()) as server:
        code, output, told = await person.log_in(server.url)
    assert code == 0, told
    assert person.key["api_key"] == "gpudev_first_secret"
    assert (person.config / "key.json").stat().st_mode & 0o777 == 0o600
    assert person.config.stat().st_mode & 0o777 == 0o700
    assert "ann" in output
    assert "secret" not in output + told
    sent = json.loads(server.seen[0]["body"])
    assert sent == {"aws_access_key_id": "ASIA1", "aws_secret_access_key": "s3cret", "aws_session_token": "t0ken"}


async def test_a_key_that_nears_its_end_is_renewed_once(person: Person) -> None:
    async with scripted(login(), says(new_key("gpudev_second_secret", 2)), KEYS, KEYS) as server:
        await person.log_in(server.url)
        person.age(minutes_left=10)
        assert (await person.run("keys"))[0] == 0
        assert (await person.run("keys"))[0] == 0
    assert [one["path"].split("?")[0] for one in server.seen[1:]] == ["/v1/keys/rotate", "/v1/keys", "/v1/keys"]
    assert [one["headers"]["authorization"].split("_")[1] for one in server.seen[1:]] == ["first", "second", "second"]
    assert (person.config / "key.json").stat().st_mode & 0o777 == 0o600


async def test_at_the_end_of_the_log_in_session_it_is_not_renewed_again(person: Person) -> None:
    async with scripted(login(), says(new_key("gpudev_second_secret", 1 / 6)), KEYS, KEYS) as server:
        await person.log_in(server.url)
        person.age(minutes_left=10)
        await person.run("keys")
        person.age(minutes_left=5)
        await person.run("keys")
    assert [one["path"].split("?")[0] for one in server.seen[1:]] == ["/v1/keys/rotate", "/v1/keys", "/v1/keys"]


async def test_a_key_that_cannot_be_renewed_is_used_to_its_end(person: Person) -> None:
    async with scripted(login(), says({"detail": "no"}, 500), KEYS) as server:
        await person.log_in(server.url)
        person.age(minutes_left=10)
        assert (await person.run("keys"))[0] == 0
        person.age(minutes_left=-1)
        code, _, told = await person.run("keys")
    assert code == 3
    assert "gpudev login" in told


async def test_logging_out_revokes_the_key_and_forgets_it(person: Person) -> None:
    gone = says({"key_prefix": "gpudev_first", "status": "revoked", "revoked_at": "2026-01-20T18:30:00Z"})
    async with scripted(login(), gone) as server:
        await person.log_in(server.url)
        assert (await person.run("logout"))[0] == 0
        assert (server.seen[-1]["method"], server.seen[-1]["path"]) == ("DELETE", "/v1/keys/gpudev_first")
    assert not (person.config / "key.json").exists()
    assert (await person.run("list"))[0] == 3


@pytest.mark.parametrize(
    ("status", "code", "step"),
    [
        (400, 2, "--help"),
        (401, 3, "gpudev login"),
        (403, 4, "operators"),
        (404, 5, "gpudev list"),
        (409, 6, "gpudev show"),
        (500, 1, "request r-7"),
    ],
)
async def test_an_error_has_its_code_and_says_the_next_step(person: Person, status: int, code: int, step: str) -> None:
    async with scripted(says({"detail": "so it is"}, status, X_Request_Id="r-7")) as server:
        person.hold_key(server.url)
        ended, output, told = await person.run("show", JOB)
    assert ended == code
    assert output == ""
    assert told.startswith("gpudev: so it is\n")
    assert step in told


@pytest.mark.parametrize(
    ("named", "answers"),
    [
        ([JOB], []),
        (["training"], [jobs(OTHER, NAMED)]),
        ([JOB[:8]], [jobs(OTHER), says(NAMED)]),
        ([JOB[:3]], [jobs(OTHER), jobs(OTHER, NAMED)]),
        ([], [jobs(NAMED)]),
        ([], [jobs(), jobs(ENDED)]),
    ],
    ids=["id", "name", "long beginning", "short beginning", "the only one", "the only one, over"],
)
async def test_a_job_is_named_as_people_name_it(person: Person, named: list[str], answers: list[Answerer]) -> None:
    async with scripted(*answers, DONE) as server:
        person.hold_key(server.url)
        code, output, told = await person.run("cancel", *named)
    assert (code, told) == (0, "")
    assert output == f"{JOB[:8]}: cancel succeeded\n"
    assert server.seen[-1]["path"] == f"/v1/jobs/{JOB}/cancel"
    assert server.seen[-1]["headers"]["prefer"] == "wait=30"


@pytest.mark.parametrize(
    ("named", "answers", "code"),
    [
        ([], [jobs(OTHER, NAMED)], 2),
        (["training"], [jobs(NAMED, {**OTHER, "name": "training"})], 2),
        (["unknown"], [jobs(NAMED)], 5),
        ([], [jobs()], 5),
    ],
    ids=["several", "several of a name", "none of the name", "none"],
)
async def test_where_it_is_not_clear_which_job_is_meant_nothing_is_done(
    person: Person, named: list[str], answers: list[Answerer], code: int
) -> None:
    async with scripted(*answers) as server:
        person.hold_key(server.url)
        ended, _, told = await person.run("cancel", *named)
    assert ended == code, told
    assert {one["method"] for one in server.seen} == {"GET"}


async def test_a_job_is_read_from_a_file_and_options_go_before_it(person: Person, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "image: debian:12\ninstance_type: p5.48xlarge\ngpu_count: 8\nenv_vars: {EPOCHS: 3, DEBUG: true, KEPT: a}\n"
    )
    async with scripted(says(SUBMITTED)) as server:
        person.hold_key(server.url)
        arguments = ["--file", str(tmp_path / "job.yaml"), "--gpus", "2", "-e", "EPOCHS=4", "-e", "SHELL_HAS"]
        code, output, told = await person.run("submit", *arguments, SHELL_HAS="it")
    assert (code, output) == (0, f"{JOB}\n"), told
    assert json.loads(server.seen[-1]["body"]) == {
        "image": "debian:12",
        "instance_type": "p5.48xlarge",
        "gpu_count": 2,
        "env_vars": {"EPOCHS": "4", "DEBUG": "true", "KEPT": "a", "SHELL_HAS": "it"},
    }


async def test_text_in_a_file_is_sent_as_it_is_written_whatever_yaml_makes_of_it(
    person: Person, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text(
        "image: 0123\ninstance_type: 1_000\ngpu_count: &count 010\nduration_hours: 1.50\njupyter_enabled: yes\n"
        "command: true\nname: 2026-01-20\ndisk_name: 1.10\ngithub_user: no\nworking_dir: null\n"
        "env_vars:\n"
        "  <<: {COMMIT: 0123456, AT: '0123'}\n"
        "  VERSION: 1.10\n  START: 12:30:00\n  DAY: 2026-01-20\n  NO: Off\n  1: =\n  NULL: 0x1F\n  COUNT: *count\n"
    )
    async with scripted(says(SUBMITTED)) as server:
        person.hold_key(server.url)
        code, _, told = await person.run("submit", "--file", str(tmp_path / "job.yaml"))
    assert code == 0, told
    assert json.loads(server.seen[-1]["body"]) == {
        "image": "0123",
        "instance_type": "1_000",
        "gpu_count": 8,
        "duration_hours": 1.5,
        "jupyter_enabled": True,
        "command": "true",
        "name": "2026-01-20",
        "disk_name": "1.10",
        "github_user": "no",
        "env_vars": {
            "COMMIT": "0123456",
            "AT": "0123",
            "VERSION": "1.10",
            "START": "12:30:00",
            "DAY": "2026-01-20",
            "NO": "Off",
            "1": "=",
            "NULL": "0x1F",
            "COUNT": "010",
        },
    }


async def test_a_file_of_several_documents_is_submitted_as_a_whole(person: Person, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "image: debian:12\ninstance_type: p5.48xlarge\nname: one\n---\nimage: debian:13\nname: two\n---\n"
    )
    submitted = says({"jobs": [SUBMITTED, {**SUBMITTED, "job_id": OTHER["job_id"]}], "total": 2, "message": ""})
    async with scripted(submitted) as server:
        person.hold_key(server.url)
        arguments = ["--file", str(tmp_path / "sweep.yaml"), "-t", "p4d.24xlarge", "-e", "SEED=1"]
        code, output, told = await person.run("submit", *arguments)
        waiting, _, refused = await person.run("submit", *arguments, "--wait")
    assert (code, output) == (0, f"{JOB}\n{OTHER['job_id']}\n"), told
    assert [one["path"] for one in server.seen] == ["/v1/jobs/batch"]
    assert json.loads(server.seen[0]["body"]) == {
        "jobs": [
            {"image": "debian:12", "instance_type": "p4d.24xlarge", "name": "one", "env_vars": {"SEED": "1"}},
            {"image": "debian:13", "instance_type": "p4d.24xlarge", "name": "two", "env_vars": {"SEED": "1"}},
        ]
    }
    assert waiting == 2
    assert "--wait is for one job" in refused


@pytest.mark.parametrize("text", ["? [image]\n: debian:12\n", "<<: 1\n", "env_vars: {<<: a}\n", "image: [\n"])
async def test_a_file_that_is_no_yaml_of_fields_is_refused_in_words(person: Person, tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    code, _, told = await person.run("submit", "--file", str(tmp_path / "job.yaml"))
    assert code == 2
    assert "job.yaml cannot be read" in told


async def test_a_field_that_there_is_not_is_named(person: Person, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("image: debian:12\ninstance: p5\n")
    code, _, told = await person.run("submit", "--file", str(tmp_path / "job.yaml"))
    assert code == 2
    assert "no such field: instance\n" in told


async def test_waiting_is_told_line_by_line_in_a_pipe(person: Person) -> None:
    queued = says({**ACTIVE, "status": "queued", "status_reason": "Waiting for 8 GPUs"})
    why = {"job_id": JOB, "status": "queued", "waiting": True, "queue_position": 2}
    times = {"estimated_start_time": "2126-01-20T18:30:00Z", "estimated_start_time_p90": "2126-01-20T19:30:00Z"}
    active = says({**ACTIVE, "ssh_command": "ssh somewhere"})
    async with scripted(says(SUBMITTED), says(SUBMITTED), queued, says({**why, **times}), active) as server:
        person.hold_key(server.url)
        code, output, told = await person.run("submit", "-i", "debian:12", "-t", "p5.48xlarge", "--wait")
    assert code == 0
    assert told.splitlines() == [
        f"{JOB[:8]} queued · place 2 in the queue · starts about Sun 18:30, by Sun 19:30 (p90) · Waiting for 8 GPUs",
        f"{JOB[:8]} active",
    ]
    assert output.splitlines()[0] == JOB
    assert "ssh somewhere" in output
    keys = {one["headers"]["idempotency-key"] for one in server.seen if one["path"] == "/v1/jobs/submit"}
    assert len(keys) == 1


async def test_waiting_is_one_line_that_changes_on_a_terminal(person: Person) -> None:
    queued = says({**ACTIVE, "status": "queued", "status_reason": "Waiting for 8 GPUs"})
    unknown = says({"detail": "no"}, 404)
    answers = [says(SUBMITTED), says(SUBMITTED), queued, unknown, says(ACTIVE)]
    terminal, end = os.openpty()
    async with scripted(*answers) as server:
        person.hold_key(server.url)
        arguments = ["submit", "-i", "debian:12", "-t", "p5.48xlarge", "--wait"]
        code, _, _ = await person.run(*arguments, beside=end, TERM="xterm", COLUMNS="120")
    os.close(end)
    told = shown_on(terminal)
    assert code == 0
    assert "queued · Waiting for 8 GPUs" in told
    assert "\x1b[2K" in told, "the line is written over"
    assert told.count("\n") <= 1


async def test_a_job_that_fails_while_it_is_waited_for_ends_the_command_with_8(person: Person) -> None:
    failed = says({**ACTIVE, "status": "failed", "failure_reason": "The image was not found"})
    async with scripted(says(SUBMITTED), says(SUBMITTED), failed) as server:
        person.hold_key(server.url)
        code, output, told = await person.run("submit", "-i", "debian:12", "-t", "p5.48xlarge", "--wait")
    assert code == 8
    assert "The image was not found" in output
    assert "gpudev logs" in told


async def test_logs_are_byte_for_byte_and_followed(person: Person) -> None:
    async with scripted(streams(b"a\xff\n\nb")) as server:
        person.hold_key(server.url)
        assert (await person.run("logs", JOB, "--json"))[0] == 0
    async with scripted(streams(b"a\n", b"b"), says(ENDED)) as server:
        person.hold_key(server.url)
        assert (await person.run("logs", "-f", JOB))[1] == "a\nb"
        server.seen.clear()
        code, output, _ = await person.run("logs", "-f", JOB, "--json")
    assert code == 0
    assert [json.loads(line) for line in output.splitlines()] == [{"line": "a"}, {"line": "b"}]


def app_order(names: set[str]) -> list[str]:
    return [name for name in typer.main.get_command(app).commands if name in names]  # type: ignore[attr-defined]


def test_every_command_has_json() -> None:
    def without(command: Any, name: str) -> list[str]:
        if hasattr(command, "commands"):
            return [bad for one, each in command.commands.items() for bad in without(each, f"{name} {one}")]
        return [] if any("--json" in parameter.opts for parameter in command.params) else [name]

    # what becomes another program, speaks another language, or prints a file of one
    others = {"run", "ssh", "cp", "forward", "open", "ssh-config", "proxy", "host-keys", "mcp"}
    assert without(typer.main.get_command(app), "gpudev") == [f"gpudev {name}" for name in app_order(others)]


def test_the_package_makes_the_command() -> None:
    made = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]
    module, name = made["scripts"]["gpudev"].split(":")
    assert callable(getattr(import_module(module), name))


def test_gpu_types_stand_for_instance_types_that_there_are() -> None:
    known = {one.name: one.gpu_type for one in CATALOGUE}
    assert {known[instance]: instance for instance in job_options.INSTANCE_TYPES.values()} == job_options.INSTANCE_TYPES
    assert set(job_options.INSTANCE_TYPES) == set(known.values())


async def test_defaults_go_behind_options_and_a_gpu_type_stands_for_an_instance_type(person: Person) -> None:
    async with scripted(says(SUBMITTED)) as server:
        person.hold_key(server.url)
        (person.config / "defaults.yaml").write_text("image: debian:12\ninstance_type: p5.48xlarge\ngithub_user: ann\n")
        code, _, told = await person.run("submit", "--gpu-type", "a100", "--github-user", "bob")
        assert code == 0, told
        assert (await person.run("submit", "--gpu-type", "a100", "-t", "p5.48xlarge"))[0] == 2
        assert "h100" in (await person.run("submit", "--gpu-type", "none"))[2]
    assert json.loads(server.seen[0]["body"]) == {
        "image": "debian:12",
        "instance_type": "p4d.24xlarge",
        "github_user": "bob",
    }


def browser_in(folder: Path) -> str:
    """A browser that keeps the argument that it was given in `given`, and the page behind it in `page`."""
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {folder}/given; cp "${{1#file://}}" {folder}/page\n')
    browser.chmod(0o755)
    return str(browser)


async def test_the_console_opens_in_the_browser_and_its_code_is_on_no_command_line(
    person: Person, tmp_path: Path
) -> None:
    code = {"code": "once-only", "path": "/console#code=once-only", "expires_at": "2026-01-20T18:31:00Z"}
    async with scripted(says(code)) as server:
        person.hold_key(server.url)
        ended, output, told = await person.run("console", BROWSER=browser_in(tmp_path))
    assert ended == 0, told
    assert "once-only" not in output + told + (tmp_path / "given").read_text()
    assert f"url={server.url}/console#code=once-only" in (tmp_path / "page").read_text()


@pytest.mark.parametrize("runs_already", [True, False])
async def test_jupyter_opens_in_the_browser_and_its_token_is_on_no_command_line(
    person: Person, tmp_path: Path, runs_already: bool
) -> None:
    on: dict[str, Any] = {**ACTIVE, "jupyter_enabled": True}

    async def tell_on(_: web.Request) -> web.StreamResponse:
        return web.json_response({**on, "jupyter_url": f"{server.url}/lab?token=t&a=1"})

    asked = [tell_on] if runs_already else [says(ACTIVE), DONE, tell_on]
    unknown, served = says({}, 404), says({}, 302)
    async with scripted(*asked, unknown, unknown, served) as server:
        person.hold_key(server.url)
        code, output, told = await person.run("jupyter", "open", JOB, BROWSER=browser_in(tmp_path))
    assert (code, output) == (0, f"{server.url}/lab?token=t&a=1\n"), told
    assert "token" not in (tmp_path / "given").read_text()
    assert f"url={server.url}/lab?token=t&amp;a=1" in (tmp_path / "page").read_text()
    assert (person.config / "open.html").stat().st_mode & 0o777 == 0o600
    of_the_api = server.seen[: len(asked)]
    assert [one["method"] for one in of_the_api] == (["GET"] if runs_already else ["GET", "POST", "GET"])
    # until the ingress knows the host
    assert [one["path"] for one in server.seen[len(asked) :]] == ["/lab"] * 3


async def test_jupyter_is_told_once_its_own_host_is_served_and_what_is_wrong_if_it_is_not(person: Person) -> None:
    async def tell_on(_: web.Request) -> web.StreamResponse:
        port = urlsplit(server.url).port
        return web.json_response({**ACTIVE, "jupyter_url": f"http://5f0c1b9e.localhost:{port}/lab?token=t"})

    async with scripted(DONE, tell_on, says({}, 404), says({}, 200), DONE, tell_on, says({}, 404)) as server:
        person.hold_key(server.url)
        code, output, told = await person.run("jupyter", "on", JOB)
        assert (code, told) == (0, "")
        assert output.endswith("/lab?token=t\n")
        assert len(server.seen) == 4
        assert server.seen[3]["headers"]["host"].startswith("5f0c1b9e.localhost:")
        code, output, told = await person.run("jupyter", "on", JOB)
    assert (code, "HTTP 404" in told) == (0, True)
    assert output.endswith("/lab?token=t\n")


OPENSSH = """#!/bin/sh
# in the place of ssh and scp: what they are called with, without options
printf '%s\n' "$@" | sed '/^-o$/,+1d'
"""


@pytest.mark.parametrize(
    ("words", "called"),
    [
        ("ssh", f"{JOB}.gpudev"),
        ("ssh work", f"{JOB}.gpudev"),
        ("ssh work ls -l", f"{JOB}.gpudev ls -l"),
        ("ssh work -- ls -l", f"{JOB}.gpudev -- ls -l"),
        ("ssh -- ls -l", f"{JOB}.gpudev ls -l"),
        ("ssh -- work --version", f"{JOB}.gpudev work --version"),
        ("cp -r out :", f"-r out {JOB}.gpudev:"),
        ("cp work:out .", f"{JOB}.gpudev:out ."),
        ("forward 8080:6006", f"-N -L 127.0.0.1:8080:127.0.0.1:6006 {JOB}.gpudev"),
        ("forward work 6006 80", f"-N -L 127.0.0.1:6006:127.0.0.1:6006 -L 127.0.0.1:80:127.0.0.1:80 {JOB}.gpudev"),
    ],
)
async def test_the_only_job_need_not_be_named_before_what_follows(
    person: Person, tmp_path: Path, words: str, called: str
) -> None:
    for name in ("ssh", "scp"):
        (tmp_path / name).write_text(OPENSSH)
        (tmp_path / name).chmod(0o755)
    active = {**ACTIVE, "name": "work", "github_user": "ann"}
    async with scripted(jobs(active), says(active)) as server:
        person.hold_key(server.url)
        code, output, told = await person.run(*words.split(), PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (code, output.split()) == (0, called.split()), told


@pytest.mark.parametrize(
    ("name", "forwarded"), [("7", ["6006"]), ("work", ["7", "6006"])], ids=["a job's name", "a port"]
)
async def test_a_number_before_ports_is_the_job_that_is_called_so_or_else_a_port(
    person: Person, tmp_path: Path, name: str, forwarded: list[str]
) -> None:
    (tmp_path / "ssh").write_text(OPENSSH)
    (tmp_path / "ssh").chmod(0o755)
    active = {**ACTIVE, "name": name, "github_user": "ann"}
    async with scripted(jobs(active), jobs(active), says(active)) as server:
        person.hold_key(server.url)
        code, output, told = await person.run("forward", "7", "6006", PATH=f"{tmp_path}:{os.environ['PATH']}")
    ports = [word for port in forwarded for word in ("-L", f"127.0.0.1:{port}:127.0.0.1:{port}")]
    assert (code, output.split()) == (0, ["-N", *ports, f"{JOB}.gpudev"]), told


async def test_two_configurations_share_no_connection(tmp_path: Path) -> None:
    """Also where their folders' names are too long for a socket: each may know another job by the same name."""
    folders = [tmp_path / ("long" * 20) / name / "gpudev" for name in ("one", "two")]
    paths = []
    for folder in folders:
        folder.mkdir(parents=True)
        code, output, told = await Person(tmp_path).run("ssh-config", GPUDEV_CONFIG_DIR=str(folder), TMPDIR="/tmp")
        assert code == 0, told
        paths += [line.split()[1] for line in output.splitlines() if line.split()[0] == "ControlPath"]
    assert len(set(paths)) == 2, paths
    for path in paths:
        Path(path).parent.rmdir()


async def test_a_run_says_what_is_missing_before_it_submits_anything(person: Person) -> None:
    async with scripted(says({})) as server:
        person.hold_key(server.url)
        assert "nothing to run" in (await person.run("run"))[2]
        assert "--github-user" in (await person.run("run", "--", "true"))[2]
        outside = await person.run("run", "--github-user", "ann", "--no-send", "--out", "../x", "--", "true")
    assert "outside the folder" in outside[2]
    assert server.seen == []


async def test_usage_is_a_table_with_its_total(person: Person) -> None:
    rows = [
        {"date": "2026-01-19", "username": "ann", "gpu_type": "h100", "gpu_hours": 4.0, "user_id": 1},
        {"date": "2026-01-20", "username": "bob", "gpu_type": "a100", "gpu_hours": 0.125, "user_id": 2},
    ]
    answer = says({"from": "2026-01-19", "to": "2026-01-20", "rows": rows})
    async with scripted(answer) as server:
        person.hold_key(server.url)
        code, output, _ = await person.run("usage", "--from", "2026-01-19", "--to", "2026-01-20", "--user", "*")
        _, as_json, _ = await person.run("usage", "--json")
    assert code == 0
    assert [line.split() for line in output.splitlines()] == [
        ["DAY", "USER", "GPU", "GPU", "HOURS"],
        ["2026-01-19", "ann", "h100", "4.00"],
        ["2026-01-20", "bob", "a100", "0.12"],
        ["total", "4.12"],
    ]
    assert json.loads(as_json)["from"] == "2026-01-19"
    assert query_of(server.seen[0]) == {"from": "2026-01-19", "to": "2026-01-20", "user": "*"}


async def test_the_audit_is_read_over_its_pages_as_far_as_is_asked(person: Person) -> None:
    def entry(number: int, **changes: Any) -> dict[str, Any]:
        told = {
            "at": "2026-01-20T18:30:00Z",
            "action": "cancel_job",
            "user_id": 1,
            "username": "ann",
            "key_prefix": "gpudev_k",
            "address": "198.51.100.7",
            "object_kind": "job",
            "object_id": str(number),
            "object_name": None,
            "request_id": None,
            "service": "jobs",
        }
        return told | changes

    first = says({"entries": [entry(1, object_name="training"), entry(2, username=None)], "next": "9-jobs-2"})
    second = says({"entries": [entry(3), entry(4)], "next": None})
    async with scripted(first, second) as server:
        person.hold_key(server.url)
        code, output, _ = await person.run("audit", "--user", "ann", "-n", "3")
    assert code == 0
    assert [line.split() for line in output.splitlines()[1:]] == [
        ["2026-01-20", "18:30:00", "ann", "cancel_job", "job", "1", "(training)", "198.51.100.7"],
        ["2026-01-20", "18:30:00", "gpudev-admin", "cancel_job", "job", "2", "198.51.100.7"],
        ["2026-01-20", "18:30:00", "ann", "cancel_job", "job", "3", "198.51.100.7"],
    ]
    assert [query_of(one).get("before") for one in server.seen] == [None, "9-jobs-2"]


def query_of(seen: dict[str, Any]) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(seen["path"]).query))
