"""A trace goes on through outbox, stream and RPC; off it leaves nothing; who takes it has no hold on the service."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import sqlalchemy as sa

from shared.contracts.events import CloudEvent
from shared.database import Statement
from shared.errors import Unavailable
from shared.messaging import Broker, RpcEndpoint, call_rpc
from shared.messaging.rpc import RpcServer
from shared.routes import SERVICES
from shared.tracing import CLOSE_SECONDS, close_traces, configure_traces, current_traceparent, span
from shared.web.drain import Drain
from shared.web.request import RequestLayer
from tests.support.collector import Collector, collecting, collector
from tests.support.harness import Harness, eventually, running
from tests.support.promises import Stopwatch, promised
from tests.support.servers import NatsServer

__all__ = ["collector"]
_STORED = Statement(sa.text("SELECT traceparent FROM outbox"))
CLIENTS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def is_sampled(traceparent: str) -> bool:
    return bool(int(traceparent.rpartition("-")[2], 16) & 1)


async def newest_event(harness: Harness, entity: str) -> dict[str, Any]:
    message = await harness.broker.jetstream.get_last_msg("GPUDEV", f"gpudev.v1.{harness.name}.happened.{entity}")
    return dict(msgspec.json.decode(message.data or b""))


@pytest.mark.parametrize("together", [False, True])
async def test_what_an_event_brings_about_belongs_to_the_trace_of_its_cause(
    harness: Harness, collector: Collector, together: bool
) -> None:
    harness.together = together
    seen: list[str | None] = []
    on_event = harness._on_event

    async def note(transaction: Any, data: Any, event: CloudEvent) -> None:
        seen.append(event.traceparent if together else current_traceparent())
        await on_event(transaction, data, event)

    harness._on_event = note  # type: ignore[method-assign]
    consumer = harness.consumer()
    async with running(harness.relay.loop.run, consumer.loop.run):
        with span("cause", root=True) as cause:
            await harness.publish("one")
        await harness.publish("untraced")
        await eventually(lambda: len(harness.seen) == 2, "both")
    assert cause is not None
    await eventually(lambda: len(collector.spans) >= 3, "the spans")
    name = f"dev.gpudev.{harness.name}.happened.v1"
    (taken,) = collector.named(f"take in {name}")
    assert collector.way_to(taken) == [
        "gpudev-test: cause",
        f"gpudev-test: publish {name}",
        f"gpudev-test: take in {name}",
    ]
    assert len(collector.spans) == 3, "what nobody traces begins no trace"
    assert seen[0] is not None
    assert seen[0].split("-")[1:3] == [taken.trace, taken.id]
    assert not seen[1]
    assert [row["traceparent"] for row in await harness.database.fetch_all(_STORED)] == [cause.traceparent, None]
    (published,) = collector.named(f"publish {name}")
    assert (await newest_event(harness, "one"))["traceparent"].split("-")[2] == published.id
    assert "traceparent" not in await newest_event(harness, "untraced")


async def test_off_there_is_nothing_of_it(harness: Harness) -> None:
    assert current_traceparent() is None
    with span("cause", root=True) as cause:
        assert cause is None
        async with running(harness.relay.loop.run, harness.consumer().loop.run):
            await harness.publish("one")
            await eventually(lambda: harness.seen, "it is handled")
            assert "traceparent" not in await newest_event(harness, "one")
    assert [row["traceparent"] for row in await harness.database.fetch_all(_STORED)] == [None]


def test_off_nothing_of_opentelemetry_is_loaded() -> None:
    modules = ", ".join(["shared.serve", *(f"services.{service}.app" for service in SERVICES)])
    program = (
        f"import sys, {modules}\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'google.protobuf'))])"
    )
    said = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert said.strip() == "[]"


class Asked(msgspec.Struct, frozen=True):
    text: str


async def test_a_question_to_another_service_belongs_to_the_trace(
    harness: Harness, nats_server: NatsServer, collector: Collector
) -> None:
    subject = f"{harness.name}.echo"
    inside: list[str | None] = []

    async def echo(asked: Asked) -> Asked:
        inside.append(current_traceparent())
        return asked

    other = Broker(nats_server.url, name="other")
    RpcServer(broker=other, service=harness.name, endpoints=[RpcEndpoint(subject, Asked, echo)])

    async def answers() -> bool:
        return await call_rpc(harness.broker, subject, Asked("ping"), Asked, timeout_seconds=0.2) == Asked("ping")

    async with running(other.run):
        await eventually(lambda: other.connected, "connected")
        await eventually(lambda: _quietly(answers()), "it answers")
        with span("cause", root=True):
            assert await call_rpc(harness.broker, subject, Asked("hello"), Asked) == Asked("hello")
        await eventually(lambda: collector.named(f"answer {subject}"), "the span")
    (answered,) = collector.named(f"answer {subject}")
    assert [one.rpartition(": ")[2] for one in collector.way_to(answered)] == [
        "cause",
        f"ask {subject}",
        f"answer {subject}",
    ]
    assert inside[0] is None, "a question that nobody traces begins no trace"
    assert inside[-1] is not None
    assert answered.id in inside[-1]


async def _quietly(asked: Any) -> bool:
    try:
        return bool(await asked)
    except Unavailable:
        return False


async def application(scope: Any, _: Any, send: Any) -> None:
    """What a service is to the layer around it: it answers with the trace that it finds itself in."""
    broken = scope["path"] == "/things/broken"
    scope["path_template"] = "/things/{name:str}"
    await send({"type": "http.response.start", "status": 500 if broken else 200, "headers": []})
    await send({"type": "http.response.body", "body": (current_traceparent() or "none").encode()})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=RequestLayer(application, Drain()))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


async def test_a_request_begins_a_trace_or_goes_on_with_its_clients(
    client: httpx.AsyncClient, collector: Collector
) -> None:
    inside = (await client.get("/things/a-name", headers={"X-Request-Id": "r1"})).text
    for wrong in ("nonsense", "00-0-0-00", "\u00e4"):
        assert (await client.get("/things/x", headers={b"traceparent": wrong.encode("latin-1")})).status_code == 200
    await client.get("/things/b", headers={"traceparent": CLIENTS})
    assert (await client.get("/livez", headers={"traceparent": CLIENTS})).text == "none"
    await eventually(lambda: len(collector.spans) == 5, "the spans")
    first, *_, last = collector.spans
    assert first.name == "GET /things/{name:str}"
    assert first.attributes == {
        "http.request.method": "GET",
        "http.route": "/things/{name:str}",
        "http.response.status_code": 200,
        "gpudev.request_id": "r1",
    }
    assert inside.split("-")[1:3] == [first.trace, first.id]
    assert [one.parent for one in collector.spans] == ["", "", "", "", CLIENTS.split("-")[2]]
    assert last.trace == CLIENTS.split("-")[1]


async def test_a_request_that_fails_is_marked_and_tells_no_text(
    client: httpx.AsyncClient, collector: Collector
) -> None:
    assert (await client.get("/things/broken")).status_code == 500
    await eventually(lambda: collector.spans, "the span")
    (span_of_it,) = collector.spans
    assert span_of_it.failed
    assert span_of_it.attributes["error.type"] == "500"
    assert "secret" not in repr(span_of_it)


async def test_a_client_that_wants_no_trace_gets_none(client: httpx.AsyncClient, collector: Collector) -> None:
    inside = (await client.get("/things/a", headers={"traceparent": CLIENTS[:-1] + "0"})).text
    assert inside.startswith(CLIENTS[:36])
    assert not is_sampled(inside)
    await client.get("/things/b")
    await eventually(lambda: collector.spans, "the other's span")
    assert [one.trace for one in collector.spans] != [CLIENTS.split("-")[1]]


@pytest.mark.parametrize("trouble", ["away", "failing", "silent"])
async def test_a_collector_in_trouble_costs_requests_nothing_and_the_end_some_seconds_at_most(
    client: httpx.AsyncClient, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "32")
    with collecting() as there:
        there.status = 503 if trouble == "failing" else 200
        if trouble == "silent":
            there.silent.set()
        url = "http://127.0.0.1:9" if trouble == "away" else there.url
        configure_traces(service="test", replica="test-1", endpoint=url)
        try:
            for _ in range(200):
                assert (await client.get("/things/a")).status_code == 200
            if trouble != "away":
                await eventually(lambda: there.asked, "it was asked")
            longest = 0.0
            for _ in range(200):
                watch = Stopwatch()
                assert (await client.get("/things/a")).status_code == 200
                longest = max(longest, watch.seconds())
            assert longest < 4.0, "no request waits for the collector, for which a try may take five"
        finally:
            with promised(CLOSE_SECONDS + 1):
                await asyncio.to_thread(close_traces)
    assert current_traceparent() is None


async def test_opentelemetrys_own_variables_switch_it_on(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as there:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", there.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        configure_traces(service="test", replica="test-1", endpoint=None)
        assert not is_sampled((await client.get("/things/a")).text), "the sampler is what its variable says"
        close_traces()
        monkeypatch.delenv("OTEL_TRACES_SAMPLER")
        configure_traces(service="test", replica="test-1", endpoint=None)
        assert is_sampled((await client.get("/things/a")).text)
        close_traces()
    assert [one.name for one in there.spans] == ["GET /things/{name:str}"]
