"""What is given to NATS and to the ingress controllers, on the real servers."""

import asyncio
import http.client
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from deploy.chart import generate, settings, tools
from deploy.local.part import Part, program
from deploy.local.ports import HOST, free_ports
from shared.background import cancel_all
from shared.contracts.events import STREAM, SUBJECT_ROOT
from shared.messaging import Broker
from shared.messaging.stream import StreamKeeper
from shared.settings import CommonSettings
from tests.support.chart import Object, environment, objects, of_kind, pod_templates
from tests.support.harness import eventually
from tests.support.servers import ServerProcess

DEPENDENCIES = generate.HERE.parent / "dependencies"
USERS = ("auth", "jobs", "disks", "capacity", "operator", "tools")
PRESETS = ("traefik", "nginx", "alb")


def values_of(path: str) -> Any:
    return yaml.safe_load((DEPENDENCIES / path).read_text())


class Nats:
    """One of three servers, configured as NATS's own chart makes it of our values."""

    def __init__(self, folder: Path, number: int, ports: list[int]) -> None:
        self.url = f"{HOST}:{ports[2 * number]}"
        folder.mkdir()
        config = {
            "server_name": f"nats-{number}",
            "listen": self.url,
            "cluster": {
                "name": "nats",
                "listen": f"{HOST}:{ports[2 * number + 1]}",
                "no_advertise": True,
                "routes": [f"nats://{HOST}:{port}" for port in ports[1::2]],
            },
            "jetstream": {"store_dir": str(folder / "data")},
        }
        lines = [f"{name}: {json.dumps(value)}" for name, value in config.items()]
        for name, value in values_of("nats.yaml")["config"]["merge"].items():
            assert name.endswith("$include")
            lines.append(f"include {value};")
        (folder / "nats.conf").write_text("\n".join(lines))
        for name, text in values_of("nats-accounts.yaml")["configMap"]["merge"]["data"].items():
            (folder / name).write_text(text)
        (folder / "passwords.conf").write_text("".join(f'{user.upper()}_PASSWORD: "{user}1"\n' for user in USERS))
        self.process = ServerProcess(
            Part(
                name="nats",
                argv=(program("nats-server"), "-c", str(folder / "nats.conf")),
                log=folder / "nats.log",
                ready=lambda: "Server is ready" in (folder / "nats.log").read_text(),
            )
        )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Nats]]:
    ports = free_ports(6)
    servers = [Nats(tmp_path / str(number), number, ports) for number in range(3)]
    with ExitStack() as stack:
        for server in servers:
            server.process.start()
            stack.callback(server.process.kill)
        yield servers


async def test_three_servers_keep_the_stream_when_one_dies(cluster: list[Nats]) -> None:
    def broker(user: str) -> Broker:
        urls = ",".join(f"nats://{user}:{user}1@{server.url}" for server in cluster)
        copies = int(environment(user, objects())["GPUDEV_STREAM_REPLICAS"])
        return Broker(urls, name=user, inbox=f"_INBOX.{user}", stream_replicas=copies)

    auth, jobs = broker("auth"), broker("jobs")
    tasks = [asyncio.create_task(one.run()) for one in (auth, jobs)]
    tasks.append(asyncio.create_task(StreamKeeper(auth).loop.run()))
    try:
        stream = await eventually(lambda: made_stream(auth), "a stream of three copies", seconds=60)
        await eventually(lambda: jobs.connected, "jobs is connected", seconds=60)
        assert stream.config.num_replicas == 3
        victim = next(server for server in cluster if server.url not in str(jobs.client.connected_url))
        victim.process.kill()
        ack = await eventually(lambda: published(jobs), "an event that is kept", seconds=60)
        assert ack.stream == STREAM
    finally:
        await cancel_all(tasks)


async def made_stream(broker: Broker) -> Any:
    with suppress(Exception):
        stream = await broker.jetstream.stream_info(STREAM)
        return stream if stream.cluster and len(stream.cluster.replicas or ()) == 2 else None


async def published(broker: Broker) -> Any:
    with suppress(Exception):
        return await broker.jetstream.publish(f"{SUBJECT_ROOT}.jobs.submitted.1", b"{}", timeout=2)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder of secrets for an installation."""
    folder = tmp_path / "secrets"
    where = ["--database", "db.example.org/gpudev", "--nats", "nats://nats.nats:4222"]
    command = [sys.executable, str(generate.HERE.parent / "secrets.py"), "new", str(folder), *where]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_passwords_come_from_the_secret_that_is_made_for_nats(secrets: Path) -> None:
    (made,) = yaml.safe_load_all((secrets / "nats.yaml").read_text())
    (patch,) = values_of("nats.yaml")["podTemplate"]["patch"]
    (source,) = (one["secret"] for one in patch["value"]["projected"]["sources"] if "secret" in one)
    assert source["name"] == made["metadata"]["name"]
    assert [item["key"] for item in source["items"]] == list(made["stringData"])
    for user in USERS:
        assert re.search(rf'^{user.upper()}_PASSWORD: "', made["stringData"]["passwords.conf"], re.MULTILINE)


def test_the_secrets_that_are_made_are_those_that_the_chart_asks_for(secrets: Path) -> None:
    made = list(yaml.safe_load_all((secrets / "gpudev.yaml").read_text()))
    given = {(one["metadata"]["name"], key) for one in made for key in one["stringData"]}
    assert {one["metadata"]["namespace"] for one in made} == {"gpudev-system"}
    wanted = {
        (reference["name"], reference["key"])
        for _, pod in pod_templates()
        for variable in pod["spec"]["containers"][0]["env"]
        if (reference := variable.get("valueFrom", {}).get("secretKeyRef"))
    }
    assert wanted == given


def preset(name: str) -> list[Object]:
    values = values_of(f"ingress/{name}.yaml")
    values["ingress"] |= {"host": "gpudev.example.org", "tls": {"secret": "tls"}}
    return objects(**values)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_makes_an_ingress_of_its_class_and_lets_its_controller_in(name: str) -> None:
    ingress = of_kind("Ingress", preset(name))["gpudev"]
    assert ingress["spec"]["ingressClassName"] == name
    own = {"traefik": "traefik.ingress", "nginx": "nginx.ingress", "alb": "alb.ingress"}[name]
    assert all(key.startswith(own) for key in ingress["metadata"]["annotations"])
    policies = [one for one in preset(name) if one["kind"] == "NetworkPolicy"]
    (rule, *_) = next(one for one in policies if one["metadata"]["name"] == "gpudev-auth")["spec"]["ingress"]
    assert rule["from"] == values_of(f"ingress/{name}.yaml")["networkPolicies"]["ingressFrom"]


def test_silent_connections_are_closed_by_who_stands_before_the_service_first() -> None:
    head_seconds = next(one for one in msgspec.structs.fields(CommonSettings) if one.name == "head_seconds").default
    balancer = values_of("ingress/alb.yaml")["ingress"]["annotations"]
    (idle,) = re.findall(r"idle_timeout.timeout_seconds=(\d+)", json.dumps(balancer))
    keepalive = values_of("ingress/nginx-controller.yaml")["controller"]["config"]["upstream-keepalive-timeout"]
    # between what a followed log says at least, and what the service waits for
    for seconds in (int(idle), int(keepalive)):
        assert 15 * 2 < seconds < head_seconds


def test_services_serve_until_the_balancer_has_taken_them_out() -> None:
    values = values_of("ingress/alb.yaml")
    annotations = values["ingress"]["annotations"]
    notice = int(annotations["alb.ingress.kubernetes.io/healthcheck-interval-seconds"]) * int(
        annotations["alb.ingress.kubernetes.io/unhealthy-threshold-count"]
    )
    (delay,) = re.findall(r"deregistration_delay.timeout_seconds=(\d+)", json.dumps(annotations))
    assert values["settings"]["drain_seconds"] >= max(notice, int(delay))
    for name, deployment in of_kind("Deployment", preset("alb")).items():
        spec = deployment["spec"]["template"]["spec"]
        sessions = settings.default("session_seconds") if name == "gpudev-jobs" else 0
        assert spec["terminationGracePeriodSeconds"] >= values["settings"]["drain_seconds"] + sessions + 40


def test_traefik_takes_its_arguments_and_sends_http_to_https(tmp_path: Path) -> None:
    web, websecure = free_ports(2)
    arguments = values_of("ingress/traefik-controller.yaml")["additionalArguments"]
    points = [f"--entryPoints.web.address={HOST}:{web}", f"--entryPoints.websecure.address={HOST}:{websecure}"]
    traefik = ServerProcess(
        Part(
            name="traefik",
            argv=(program("traefik"), *points, *arguments, "--global.checkNewVersion=false", "--providers.rest=true"),
            log=tmp_path / "traefik.log",
            # at first it knows no routes, its own neither
            ready=lambda: answer(web) not in {None, (404, None)},
        )
    )
    traefik.start()
    try:
        assert answer(web) == (301, f"https://{HOST}/v1/jobs")
    finally:
        traefik.stop()


def answer(port: int) -> tuple[int, str | None] | None:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/v1/jobs")
        got = connection.getresponse()
        return got.status, got.getheader("Location")
    except OSError:
        return None
    finally:
        connection.close()


def images_in(value: Any, key: str = "") -> Iterator[str]:
    """Everything that names an image, wherever it stands."""
    if isinstance(value, dict):
        if str(value.get("name", "")).endswith("IMAGE") and "value" in value:
            yield value["value"]
        for name, inner in value.items():
            yield from images_in(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from images_in(inner, key)
    elif key == "image":
        yield value


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"image": {"registry": "10.0.0.9:5000/lab", "tag": "1.2", "digests": {"jobs": "sha256:" + "0" * 64}}},
        {"test": {"image": "busybox:1"}, "services": {"jobs": {"settings": {"tools_image": "elsewhere/tools:3"}}}},
    ],
)
def test_the_printed_list_of_images_is_all(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    listed = subprocess.run(
        [str(generate.HERE / "images.sh"), "list", "-f", str(tmp_path / "values.yaml")],
        check=True,
        capture_output=True,
        text=True,
        env={"HELM": str(tools.helm()), "PATH": "/usr/bin:/bin"},
    ).stdout.split()
    assert set(listed) == set(itertools.chain.from_iterable(images_in(one) for one in objects(**values)))
    assert len(listed) == len(set(listed))


def test_one_value_moves_every_image() -> None:
    found = set(itertools.chain.from_iterable(images_in(one) for one in objects(image={"registry": "lab:5000"})))
    assert found == {f"lab:5000/gpudev-{name}:0.1.0" for name in ("auth", "jobs", "disks", "capacity", "tools")}


def test_images_are_copied_to_where_the_values_say(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    skopeo = tmp_path / "skopeo"
    skopeo.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    skopeo.chmod(0o755)
    subprocess.run(
        [str(generate.HERE / "images.sh"), "copy", "registry.example.org/", "--set", "image.registry=lab:5000/gpu"],
        check=True,
        env={"HELM": str(tools.helm()), "PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    copied = calls.read_text().splitlines()
    names = [f"gpudev-{name}:0.1.0" for name in ("auth", "capacity", "disks", "jobs", "tools")]
    assert copied == [f"copy --all docker://registry.example.org/{n} docker://lab:5000/gpu/{n}" for n in names]
