"""docs/operate/install.md, followed to the letter, and what an operator then relies on."""

import json
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config

from deploy.chart import tools
from shared.routes import SERVICES
from tests.install.document import ROOT
from tests.install.installation import JOB_DOMAIN, JOB_IMAGE, JOBS, SYSTEM, Installation
from tests.install.surroundings import INGRESS_TLS_PORT, NODE, eventually
from tests.support.notebook import Notebook
from tests.support.promises import promised
from tests.support.stack import until

pytestmark = pytest.mark.timeout(600)
SILENT_SECONDS = 90


def test_it_is_healthy(installation: Installation) -> None:
    status, health = eventually(
        lambda: found if (found := installation.health())[0] == 200 else None, "healthy", seconds=180
    )

    assert status == 200
    assert health["status"] == "healthy"


def test_the_commands_that_show_that_it_works_do(installation: Installation) -> None:
    look, test = installation.document.blocks("See that it works")

    assert '"healthy"' in installation.shell.run(look)
    assert "The job ran and ended." in installation.shell.run(test)


def test_the_first_job_of_the_readme_runs(installation: Installation) -> None:
    readme = (ROOT / "README.md").read_text().split("\n## A first job\n")[1].split("```sh\n")[1].partition("```")[0]
    script = readme.replace(". .local/env", ":").replace("pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime", JOB_IMAGE)

    said = installation.shell.run(f'{script}\nexport API_KEY JOB\necho "$JOB"')

    job = said.split()[-1]
    installation.await_active(job)
    assert installation.api(f"/v1/jobs/{job}")["ssh_command"]
    installation.shell.run('curl -sS --fail "$API_URL/v1/jobs/$JOB/cancel" -X POST -H "Authorization: Bearer $API_KEY"')
    eventually(lambda: not installation.objects("pods", JOBS), "the end of the job's pod", seconds=120, pause=0.3)


def test_the_command_line_runs_and_enters_a_job_through_the_ingress(installation: Installation, tmp_path: Path) -> None:
    """With nothing but the one address: the folder goes there, a shell comes back, host keys are pinned."""
    config, project = tmp_path / "config", tmp_path / "project"
    for folder in (config, project):
        folder.mkdir(mode=0o700)
    (project / "hello").write_text("from home\n")
    job = {"image": JOB_IMAGE, "instance_type": "p5.48xlarge", "github_user": "demo", "duration_hours": 0.5}
    (config / "defaults.yaml").write_text(yaml.safe_dump(job))
    key = installation.surroundings.github.directory / "demo"
    (config / "ssh_config").write_text(f"Host *\n  IdentityFile {key}\n  IdentitiesOnly yes\n")
    own = {"PYTHONPATH": str(ROOT / "client/src"), "GPUDEV_CONFIG_DIR": str(config)}
    environment = {**installation.shell.environment, **own, "GPUDEV_SSH_CONFIG": str(config / "ssh_config")}

    def gpudev(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "gpudev", *arguments]
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        return done.returncode, done.stdout + done.stderr

    assert gpudev("login", "--url", installation.url)[0] == 0
    code, said = gpudev("run", "--keep", "--", 'read line < hello; echo "got $line"; exit 3')
    assert (code, "got from home" in said) == (3, True), said
    running = [one["job_id"] for one in json.loads(gpudev("list", "--json")[1]) if one["status"] == "active"]
    code, said = gpudev("ssh", running[0], "echo entered $((20 + 3))")
    assert (code, "entered 23" in said) == (0, True), said
    assert gpudev("cancel", running[0])[0] == 0
    eventually(lambda: not installation.objects("pods", JOBS), "the end of the job's pod", seconds=120, pause=0.3)


async def test_jupyter_is_at_hosts_of_the_jobs_own_with_the_certificate_of_them_all(
    installation: Installation,
) -> None:
    """In one's address a cell and a terminal run; another job's token opens nothing there."""
    jobs = [installation.submit("exec /gpudev/bin/busybox sleep 600", jupyter_enabled=True) for _ in range(2)]
    trusted = ssl.create_default_context(cafile=installation.certificate)
    notebooks = []
    for job in jobs:
        installation.await_active(job, seconds=240)
        url = eventually(
            lambda job=job: installation.api(f"/v1/jobs/{job}")["jupyter_url"], "JupyterLab's address", seconds=180
        )
        host = f"{job[:8]}.{JOB_DOMAIN}"
        assert url.startswith(f"https://{host}/lab?token=")
        url = url.replace(host, f"{host}:{INGRESS_TLS_PORT}")
        notebooks.append(Notebook(url, address=NODE, tls=trusted))
        await until(notebooks[-1].answers, "the ingress knows the job's host", seconds=60)
    first, second = notebooks

    assert await first.run_cell("print(6 * 7)") == "42\n"
    assert await first.run_in_terminal("echo $((20 + 3))") == "23"
    assert await second.status(token=first.token) == 403
    for job in jobs:
        installation.api(f"/v1/jobs/{job}/cancel", {})
    eventually(lambda: not installation.objects("pods", JOBS), "the end of the jobs' pods", seconds=120, pause=0.3)
    eventually(lambda: not installation.objects("ingresses", JOBS), "the end of their hosts", seconds=60, pause=0.3)


def test_a_stream_that_says_nothing_for_90_seconds_is_not_cut(installation: Installation) -> None:
    job = installation.submit("until [ -e go ]; do /gpudev/bin/busybox sleep 0.5; done; echo late")
    installation.await_active(job)
    pod = str(installation.api(f"/v1/jobs/{job}")["pod_name"])
    let_go = ("-n", JOBS, "exec", pod, "--", "/gpudev/bin/busybox", "touch", "/home/dev/go")
    headers = {"Authorization": f"Bearer {installation.shell.environment['API_KEY']}"}
    path = f"/v1/jobs/{job}/logs?follow=true"

    began = time.monotonic()
    with urllib.request.urlopen(urllib.request.Request(installation.url + path, None, headers), timeout=60) as answer:
        silence = threading.Timer(SILENT_SECONDS, installation.kubectl, let_go)
        silence.start()
        followed = answer.read().decode()
    silence.join()

    assert time.monotonic() - began >= SILENT_SECONDS
    assert [line for line in followed.splitlines() if "late" in line]


@pytest.mark.parametrize(
    ("service", "command", "said"),
    [
        ("auth", "find-user operator", "operator"),
        ("jobs", "list-orphans", ""),
        ("jobs", "list-dead-letters", ""),
        ("disks", "list-orphans", ""),
        ("capacity", "list-dead-letters", ""),
    ],
)
def test_operators_have_their_command_in_the_pods(
    installation: Installation, service: str, command: str, said: str
) -> None:
    """As docs/operate/administration.md says it."""
    answer = installation.shell.run(
        f"kubectl -n {SYSTEM} exec deploy/gpudev-{service} -- gpudev-admin {service} {command}"
    )

    assert said in answer


def test_every_pod_is_restricted_and_cannot_write_its_root(installation: Installation) -> None:
    pods = installation.objects("pods", SYSTEM)

    assert {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods} >= set(SERVICES)
    for pod in pods:
        of = pod["spec"]
        assert of["securityContext"]["runAsNonRoot"]
        assert of["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(set(volume) & {"emptyDir", "configMap", "secret", "projected"} for volume in of["volumes"])
        for container in of["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"]
            assert not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}


def rows() -> list[tuple[str, str, str, str, bool]]:
    """Service, namespace ("" for the cluster), verb, resource, allowed."""
    table = yaml.safe_load((ROOT / "deploy/chart/rights.yaml").read_text())
    found = []
    for service in SERVICES:
        allowed = {
            ("" if place == "cluster" else place, verb, resource)
            for place, resources in (table["allowed"].get(service) or {}).items()
            for resource, verbs in resources.items()
            for verb in verbs
        }
        denied = {
            ("" if place == "cluster" else place, verb, resource)
            for place, resources in table["denied"].items()
            for resource, verbs in resources.items()
            for verb in verbs
        }
        everywhere = {(verb, resource) for place, verb, resource in allowed if not place}
        found += [(service, *row, True) for row in sorted(allowed)]
        found += [(service, *row, False) for row in sorted(denied - allowed) if row[1:] not in everywhere]
    return found


def test_rights_are_those_of_the_table(installation: Installation) -> None:
    """Asked of the API server, as `kubectl auth can-i` does."""
    with config.new_client_from_config(installation.kubeconfig) as connection:
        api = client.AuthorizationV1Api(connection)
        wrong = [row for row in rows() if may(api, *row[:4]) != row[4]]

    assert not wrong


def may(api: client.AuthorizationV1Api, service: str, namespace: str, verb: str, resource: str) -> bool:
    kind, _, sub = resource.partition("/")
    name, _, group = kind.partition(".")
    attributes = {"namespace": namespace, "verb": verb, "resource": name, "subresource": sub, "group": group}
    spec = {"user": f"system:serviceaccount:{SYSTEM}:gpudev-{service}", "resourceAttributes": attributes}
    return bool(api.create_subject_access_review({"spec": spec}).status.allowed)


def ready(installation: Installation) -> bool:
    """Whether every replica of every service is."""
    deployments = installation.objects("deployments", SYSTEM)
    return len(deployments) == len(SERVICES) and all(
        found["status"].get("readyReplicas") == found["spec"]["replicas"] == found["status"].get("updatedReplicas")
        for found in deployments
    )


def restarts(installation: Installation) -> dict[str, int]:
    """Of each pod's containers."""
    return {
        pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
        for pod in installation.objects(
            "pods", SYSTEM, "-l", "app.kubernetes.io/component in (auth,jobs,disks,capacity)"
        )
    }


def test_a_killed_postgresql_is_survived_without_a_restart(installation: Installation) -> None:
    eventually(lambda: ready(installation), "ready before")
    before = restarts(installation)

    installation.surroundings.database.kill()
    eventually(lambda: not ready(installation), "not ready without the database")
    installation.surroundings.database.start()
    with promised(30):
        eventually(lambda: ready(installation) and installation.health()[0] == 200, "ready again", seconds=120)

    assert restarts(installation) == before


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_killed_nats_server_of_three_is_survived(installation: Installation, number: int) -> None:
    server = installation.surroundings.nats[number - 1]
    server.kill()
    try:
        job = installation.submit("echo done")
        eventually(lambda: installation.status(job) == "completed", "a job's end with two servers", seconds=180)
    finally:
        server.start()
    eventually(lambda: installation.health()[0] == 200, "healthy again")


def test_a_migration_that_fails_stops_the_release(installation: Installation) -> None:
    """In the image `broken` of auth, whose migrations are the first, is one more: it cannot be carried out."""
    before = {pod["metadata"]["uid"] for pod in service_pods(installation)}
    wanted = templates(installation)

    upgrade = installation.helm(
        "upgrade", "gpudev", "deploy/chart/gpudev", "--values", "values.yaml", "--wait", "--timeout", "3m",
        "--set", "image.tag=broken", "--set", "migrations.backoffLimit=0", check=False,
    )  # fmt: skip

    assert upgrade.returncode != 0
    said = installation.kubectl("-n", SYSTEM, "logs", "job/gpudev-migrate-auth")
    assert said == 'auth: the schema is not migrated: relation "there_is_none" does not exist\n'
    assert {pod["metadata"]["uid"] for pod in service_pods(installation)} == before
    assert templates(installation) == wanted
    assert ready(installation)
    assert installation.health()[0] == 200
    installation.helm("rollback", "gpudev", "--wait")
    assert {pod["metadata"]["uid"] for pod in service_pods(installation)} == before


def service_pods(installation: Installation) -> list[dict[str, dict[str, str]]]:
    return installation.objects("pods", SYSTEM, "-l", "app.kubernetes.io/component in (auth,jobs,disks,capacity)")


def templates(installation: Installation) -> list[str]:
    """Which pods each Deployment wants."""
    return [
        json.dumps(found["spec"]["template"], sort_keys=True) for found in installation.objects("deployments", SYSTEM)
    ]


def test_two_migrations_at_once_have_one_effect(installation: Installation) -> None:
    dsn = installation.surroundings.postgres.dsn("gpudev")
    tables = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information)' ORDER BY 1, 2"
    before = installation.shell.run(f"""psql -X -A -t -c "{tables}" '{dsn}'""")
    manifests = migrations(installation)
    doubled = []
    for number in (1, 2):
        for manifest in manifests:
            copy = json.loads(json.dumps(manifest))
            copy["metadata"] = {"name": f"{manifest['metadata']['name']}-{number}", "namespace": SYSTEM}
            doubled.append(copy)
    installation.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": doubled}))
    names = [f"job/{copy['metadata']['name']}" for copy in doubled]
    installation.kubectl("-n", SYSTEM, "wait", "--for=condition=complete", "--timeout=180s", *names)

    assert installation.shell.run(f"""psql -X -A -t -c "{tables}" '{dsn}'""") == before
    installation.kubectl("-n", SYSTEM, "delete", *names)


def migrations(installation: Installation) -> list[dict[str, dict[str, str]]]:
    """The Jobs of a release without hooks."""
    rendered = subprocess.run(
        [tools.helm(3), "template", "gpudev", "deploy/chart/gpudev", "--namespace", SYSTEM, "--values", "values.yaml",
         "--set", "migrations.hook=false", "--kube-version", "1.20.2"],
        cwd=installation.shell.directory, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [found for found in yaml.safe_load_all(rendered) if found and found["kind"] == "Job"]
