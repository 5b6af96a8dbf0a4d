"""Who takes traces: OTLP over HTTP as OpenTelemetry defines it, by its own messages. It keeps them for the test."""

import gzip
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from deploy.local.ports import HOST, free_ports
from shared.tracing import close_traces, configure_traces


@dataclass(frozen=True)
class Seen:
    """A span that has ended."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    """Empty: it began its trace."""
    attributes: dict[str, Any]
    failed: bool


@dataclass
class Collector:
    """What was taken so far."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    asked: int = 0
    status: int = 200
    """That it answers with."""
    silent: threading.Event = field(default_factory=threading.Event)
    """Set: it takes what comes, and answers nothing until it is cleared, or closed."""
    closed: threading.Event = field(default_factory=threading.Event)

    def named(self, name: str) -> list[Seen]:
        """The spans of that name, in their order."""
        return [span for span in self.spans if span.name == name]

    def trace_of(self, name: str) -> list[Seen]:
        """All spans of the trace that the first span of that name belongs to."""
        trace = self.named(name)[0].trace
        return [span for span in self.spans if span.trace == trace]

    def way_to(self, span: Seen, *, parent: str = "") -> list[str]:
        """Services and names from the beginning of its trace, or from what belongs to `parent`, to a span."""
        by_id = {one.id: one for one in self.spans if one.trace == span.trace}
        way = [span]
        while way[0].parent in by_id:
            way.insert(0, by_id[way[0].parent])
        assert way[0].parent == parent, f"{way[0]} belongs to a span that nobody has told of"
        return [f"{one.service}: {one.name}" for one in way]

    def take(self, body: bytes) -> None:
        """What a service hands over."""
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {one.key: one.value.string_value for one in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                self.spans += [_seen(named["service.name"], one) for one in of_scope.spans]


def _seen(service: str, span: Any) -> Seen:
    attributes = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
    return Seen(
        service=service,
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes=attributes,
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector for the length of a block."""
    taken = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.asked += 1
            if taken.silent.is_set():
                taken.closed.wait()
                return
            if self.path == "/v1/traces" and taken.status == 200:
                taken.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(taken.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    taken.url = f"http://{HOST}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        taken.closed.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def relayed(taken: Collector) -> Iterator[str]:
    """Rotel, a collector that others have written, which hands on what it has taken; its URL. At the end it has."""
    package = find_spec("rotel")
    assert package is not None
    assert package.submodule_search_locations
    port, grpc_port = free_ports(2)
    program = [str(Path(package.submodule_search_locations[0]) / "rotel-agent"), "start"]
    program += ["--otlp-http-endpoint", f"{HOST}:{port}", "--otlp-grpc-endpoint", f"{HOST}:{grpc_port}"]
    program += ["--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", taken.url]
    process = subprocess.Popen(program)
    try:
        _wait_for(port, process)
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        assert process.wait(60) == 0


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            assert process.poll() is None, "it has ended"
            assert time.monotonic() < deadline, "it does not listen"
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """This process sends its traces there, at once."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collecting() as taken:
        configure_traces(service="test", replica="test-1", endpoint=taken.url)
        try:
            yield taken
        finally:
            close_traces()
