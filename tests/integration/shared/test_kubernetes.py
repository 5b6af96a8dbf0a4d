"""The client of Kubernetes, on the simulator, and through a proxy that fails as it is told to."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from deploy.local.cluster.pki import ensure_identity
from shared.kubernetes import ClusterUnavailable, KubernetesApi, StatusError, WatchEvent
from tests.support.fault_proxy import Fault, FaultProxy, fault_proxy, is_watch
from tests.support.servers import ClusterSimulator

MAPS = "/api/v1/namespaces/default/configmaps"


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    resource_version: str = ""


class Thing(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()
    data: dict[str, str] = {}


@pytest.fixture
async def proxy(cluster_simulator: ClusterSimulator, tmp_path: Path) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(cluster_simulator.kubeconfig, tmp_path) as proxy:
        yield proxy


@pytest.fixture
async def api(proxy: FaultProxy) -> AsyncIterator[KubernetesApi]:
    api = KubernetesApi(str(proxy.kubeconfig))
    yield api
    await api.close()


@pytest.fixture
def label() -> str:
    return f"t{uuid4().hex[:8]}"


async def make(api: KubernetesApi, label: str, name: str) -> Thing:
    metadata = {"name": f"{label}-{name}", "labels": {"test": label}}
    return await api.call("POST", MAPS, model=Thing, body={"metadata": metadata, "data": {"a": "1"}})


def of_test(label: str) -> dict[str, str]:
    return {"labelSelector": f"test={label}"}


async def test_what_is_made_is_read_patched_and_deleted(api: KubernetesApi, label: str) -> None:
    made = await make(api, label, "one")
    path = f"{MAPS}/{made.metadata.name}"
    await api.call("PATCH", path, model=Thing, body={"data": {"b": "2"}})
    assert (await api.call("GET", path, model=Thing)).data == {"a": "1", "b": "2"}
    await api.call("DELETE", path, model=msgspec.Raw)
    with pytest.raises(StatusError) as caught:
        await api.call("GET", path, model=Thing)
    assert caught.value.status.is_missing


async def test_an_error_tells_its_status_and_is_an_outage_to_who_does_not_know_it(
    api: KubernetesApi, label: str
) -> None:
    await make(api, label, "one")
    with pytest.raises(ClusterUnavailable) as caught:
        await make(api, label, "one")
    assert isinstance(caught.value, StatusError)
    assert (caught.value.status.code, caught.value.status.reason) == (409, "AlreadyExists")
    assert caught.value.context == {"code": 409, "reason": "AlreadyExists"}


async def test_a_404_that_is_not_of_kubernetes_says_nothing_about_an_object(
    api: KubernetesApi, proxy: FaultProxy
) -> None:
    proxy.rule = lambda _: Fault(status=404, reason="")
    with pytest.raises(StatusError) as caught:
        await api.call("GET", f"{MAPS}/any", model=Thing)
    assert not caught.value.status.is_missing


async def test_a_list_has_every_page(api: KubernetesApi, proxy: FaultProxy, label: str) -> None:
    for number in range(5):
        await make(api, label, str(number))
    before = proxy.count("GET")
    listing = await api.list_all(MAPS, Thing, query=of_test(label), page_size=2)
    assert sorted(item.metadata.name for item in listing.items) == [f"{label}-{number}" for number in range(5)]
    assert listing.resource_version.isdecimal()
    assert proxy.count("GET") - before == 3


async def first_events(api: KubernetesApi, label: str, version: str, count: int) -> list[WatchEvent[Thing]]:
    found: list[WatchEvent[Thing]] = []
    watch = api.watch(MAPS, Thing, resource_version=version, seconds=20, query=of_test(label))
    async with asyncio.timeout(30), aclosing(watch):
        async for event in watch:
            found += [event] if event.type != "BOOKMARK" else []
            if len(found) == count:
                break
    return found


async def test_a_watch_goes_on_from_a_list(api: KubernetesApi, label: str) -> None:
    await make(api, label, "before")
    listing = await api.list_all(MAPS, Thing, query=of_test(label))
    made = await make(api, label, "after")
    await api.call("DELETE", f"{MAPS}/{made.metadata.name}", model=msgspec.Raw)
    events = await first_events(api, label, listing.resource_version, 2)
    assert [(event.type, event.object.metadata.name) for event in events] == [
        ("ADDED", made.metadata.name),
        ("DELETED", made.metadata.name),
    ]


async def test_a_watch_ends_by_itself(api: KubernetesApi, label: str) -> None:
    version = (await api.list_all(MAPS, Thing)).resource_version
    async with asyncio.timeout(30):
        events = [
            event.type
            async for event in api.watch(MAPS, Thing, resource_version=version, seconds=1, query=of_test(label))
        ]
    assert set(events) <= {"BOOKMARK"}


def open_sockets() -> set[str]:
    """Of this process."""
    opened = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that reads the folder
            opened.add(str(descriptor.readlink()))
    return {name for name in opened if name.startswith("socket:")}


async def test_a_client_that_is_closed_has_left_no_connection_to_who_goes_on_sending(
    cluster_simulator: ClusterSimulator,
) -> None:
    """TLS would take leave of the other side first, for as long as that takes."""
    api, before = KubernetesApi(str(cluster_simulator.kubeconfig)), open_sockets()
    version = (await api.list_all(MAPS, Thing)).resource_version
    query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "60"}
    async with api.stream(MAPS, query, idle_seconds=10):
        assert open_sockets() - before
    await api.close()
    await asyncio.sleep(0)
    assert open_sockets() <= before


ERROR = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}'


async def test_a_watch_that_is_told_an_error_raises_it(api: KubernetesApi, proxy: FaultProxy) -> None:
    proxy.rule = lambda request: Fault(lines=(ERROR,)) if is_watch(request) else None
    with pytest.raises(StatusError) as caught:
        await anext(api.watch(MAPS, Thing, resource_version="1", seconds=5))
    assert (caught.value.status.code, caught.value.status.reason) == (410, "Expired")


@pytest.mark.parametrize(
    "fault",
    [Fault(hang=True), Fault(lines=(b"<html>",)), Fault(lines=(b'{"type":"ADDED","object":7}',))],
    ids=["hangs", "is no JSON", "is no object"],
)
async def test_a_watch_that_fails_is_an_outage(api: KubernetesApi, proxy: FaultProxy, fault: Fault) -> None:
    proxy.rule = lambda request: fault if is_watch(request) else None
    with pytest.raises(ClusterUnavailable):
        async with asyncio.timeout(30):
            await anext(api.watch(MAPS, Thing, resource_version="1", seconds=0.5, slack_seconds=0.2))


@pytest.mark.parametrize(
    "fault",
    [Fault(hang=True), Fault(lost=True), Fault(cut_after=10), Fault(lines=(b"no JSON",))],
    ids=["hangs", "is lost", "breaks", "is no JSON"],
)
async def test_an_answer_that_does_not_come_is_an_outage(api: KubernetesApi, proxy: FaultProxy, fault: Fault) -> None:
    proxy.rule = lambda _: fault
    with pytest.raises(ClusterUnavailable) as caught:
        await api.call("GET", MAPS, model=Thing, seconds=1)
    assert not isinstance(caught.value, StatusError)


@pytest.mark.parametrize("content", [None, "", "clusters: [", "clusters: 7"])
async def test_a_kubeconfig_that_is_not_there_or_half_written_is_an_outage(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    api = KubernetesApi(str(path))
    with pytest.raises(ClusterUnavailable):
        await api.call("GET", MAPS, model=Thing)
    await api.close()


async def test_a_certificate_authority_that_is_replaced_is_read_anew(
    cluster_simulator: ClusterSimulator, tmp_path: Path
) -> None:
    good, file = cluster_simulator.kubeconfig.read_bytes(), tmp_path / "kubeconfig"
    config = msgspec.json.decode(good)
    stranger = ensure_identity(tmp_path / "pki").ca.read_bytes()
    config["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(stranger).decode()
    file.write_bytes(msgspec.json.encode(config))
    api = KubernetesApi(str(file))
    try:
        with pytest.raises(ClusterUnavailable):
            await api.call("GET", MAPS, model=msgspec.Raw)
        file.write_bytes(good)
        await api.call("GET", MAPS, model=msgspec.Raw)
    finally:
        await api.close()


async def test_refused_credentials_are_read_anew(api: KubernetesApi, proxy: FaultProxy) -> None:
    def refuse_old(request: Any) -> Fault | None:
        known = request.headers["Authorization"] == "Bearer renewed"
        return None if known else Fault(status=401, reason="Unauthorized")

    await api.list_all(MAPS, Thing)
    proxy.rule = refuse_old
    with pytest.raises(StatusError) as caught:
        await api.list_all(MAPS, Thing)
    assert caught.value.status.code == 401
    proxy.kubeconfig.write_text(proxy.kubeconfig.read_text().replace("token: none", "token: renewed"))
    await api.list_all(MAPS, Thing)


async def test_a_stream_comes_piece_by_piece_and_is_given_up_when_it_is_silent(
    api: KubernetesApi, proxy: FaultProxy
) -> None:
    proxy.rule = lambda _: Fault(lines=(b"first",), hang=True)
    taken: list[bytes] = []

    async def take() -> None:
        async with api.stream(MAPS, {}, idle_seconds=1.0) as pieces:
            taken.append(await anext(pieces))
            await anext(pieces)

    with pytest.raises(ClusterUnavailable):
        await asyncio.wait_for(take(), 60)
    assert taken == [b"first\n"]


async def test_a_websocket_that_is_not_opened_tells_why(api: KubernetesApi) -> None:
    path = "/api/v1/namespaces/default/pods/none/exec"
    with pytest.raises(StatusError) as caught:
        async with api.websocket(path, [("command", "true")], protocol="v5.channel.k8s.io", seconds=5):
            pass
    assert caught.value.status.code == 404


async def test_calls_go_through_the_proxy_of_the_environment_and_past_it_to_servers_that_it_leaves_out(
    cluster_simulator: ClusterSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        for name in ("no_proxy", "NO_PROXY", "https_proxy"):
            monkeypatch.delenv(name, raising=False)
        api = KubernetesApi(str(cluster_simulator.kubeconfig))
        with pytest.raises(ClusterUnavailable):
            await api.call("GET", MAPS, model=msgspec.Raw)
        await api.close()
        (line,) = asked
        assert line.startswith(b"CONNECT 127.0.0.1:")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        api = KubernetesApi(str(cluster_simulator.kubeconfig))
        await api.call("GET", MAPS, model=msgspec.Raw)
        await api.close()
        assert len(asked) == 1
