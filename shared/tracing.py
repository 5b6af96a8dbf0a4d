"""Traces by OpenTelemetry: from a request through events to what they bring about. Off they cost nothing.

A trace goes on where nobody waits for it: its W3C `traceparent` lies in the outbox and in the rows of jobs, and goes
along with events and RPC. Only a request begins a trace; what happens without one, such as a sweep, has none. A span
holds ids and names, never what a user wrote nor the text of an error.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Any

_STANDARD = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Variables of OpenTelemetry that say where traces go, if the setting does not."""
_EXPORT_SECONDS = 5.0
"""For one try to hand spans over, in a thread of its own; what cannot be handed over is dropped."""

CLOSE_SECONDS = 5.0
"""For handing over what is left at the end."""

Attributes = Mapping[str, str | int | bool]


class Kind(Enum):
    """What a span is to those on the other side, in OpenTelemetry's words."""

    INTERNAL = 0
    SERVER = 1
    CLIENT = 2
    PRODUCER = 3
    CONSUMER = 4


class Span:
    """One piece of work of a trace, begun.

    Args:
        recorded: OpenTelemetry's.
    """

    def __init__(self, recorded: Any) -> None:
        self._recorded = recorded
        context = recorded.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        """For whoever goes on with it."""

    def rename(self, name: str) -> None:
        """Call it by what is only known now."""
        self._recorded.update_name(name)

    def note(self, attributes: Attributes) -> None:
        """Facts about it; no secret, and nothing that a user wrote."""
        self._recorded.set_attributes(attributes)

    def fail(self, kind: str) -> None:
        """It has failed, in this way: the class of an error, never its text, which may be anything."""
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 - not loaded where traces are off

        self._recorded.set_status(StatusCode.ERROR)
        self._recorded.set_attribute("error.type", kind)

    def end(self) -> None:
        """It is over."""
        self._recorded.end()


class _Tracing:
    """OpenTelemetry, set up.

    Args:
        provider: Makes tracers, and hands over what they record.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry import context, trace  # noqa: PLC0415 - not loaded where traces are off
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider = provider
        self._context = context
        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        self._tracer = provider.get_tracer("gpudev")

    def begin(self, name: str, parent: str | None, kind: Kind, attributes: Attributes, *, root: bool) -> Span | None:
        context = None if parent is None else self._propagator.extract({"traceparent": parent}, self._context.Context())
        if not root and not self._trace.get_current_span(context).get_span_context().is_valid:
            return None
        kinds = self._trace.SpanKind
        return Span(self._tracer.start_span(name, context, kind=kinds(kind.value), attributes=attributes))

    @contextmanager
    def current(self, span: Span) -> Iterator[None]:
        token = self._context.attach(self._trace.set_span_in_context(span._recorded))  # noqa: SLF001 - one module
        try:
            yield
        finally:
            self._context.detach(token)

    def traceparent(self) -> str | None:
        recorded = self._trace.get_current_span()
        return Span(recorded).traceparent if recorded.get_span_context().is_valid else None

    def close(self, seconds: float) -> None:
        # a collector that is silent would be waited for once for each batch
        closing = threading.Thread(target=self._provider.shutdown, name="close_traces", daemon=True)
        closing.start()
        closing.join(seconds)


_tracing: _Tracing | None = None
_OFF: AbstractContextManager[None] = nullcontext()


def configure_traces(*, service: str, replica: str, endpoint: str | None) -> None:
    """Send spans from now on, in a thread of their own, if there is somewhere to send them to.

    OpenTelemetry's own variables say the rest: OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and others.

    Args:
        service: Its name.
        replica: Name of this process.
        endpoint: http(s) URL of an OTLP collector, such as http://collector:4318; None: that of OpenTelemetry's own
            variables, and without them none.
    """
    global _tracing  # noqa: PLW0603 - one of a process, as its logs are
    if endpoint is None and not any(os.environ.get(name) for name in _STANDARD):
        return
    # here, so that a service without traces neither loads nor holds them
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    names = {"service.namespace": "gpudev", "service.name": f"gpudev-{service}", "service.instance.id": replica}
    provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
    url = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url, timeout=_EXPORT_SECONDS)))
    _tracing = _Tracing(provider)


def close_traces() -> None:
    """Hand over what is left, for CLOSE_SECONDS at most. Blocks."""
    global _tracing  # noqa: PLW0603 - one of a process, as its logs are
    if _tracing is not None:
        _tracing.close(CLOSE_SECONDS)
        _tracing = None


def current_traceparent() -> str | None:
    """Of what this task does; None: there is no trace."""
    return None if _tracing is None else _tracing.traceparent()


def begin_span(
    name: str, *, parent: str | None, kind: Kind = Kind.INTERNAL, attributes: Attributes | None = None
) -> Span | None:
    """Begin a piece of work that is not what its whole task does: whoever begins it ends it.

    Args:
        name: Of the kind of work; no ids.
        parent: A traceparent. None: there is no trace.
        kind: What it is to those on the other side.
        attributes: As of `Span.note`.
    """
    if _tracing is None or parent is None:
        return None
    return _tracing.begin(name, parent, kind, attributes or {}, root=False)


def span(
    name: str,
    *,
    parent: str | None = None,
    kind: Kind = Kind.INTERNAL,
    attributes: Attributes | None = None,
    root: bool = False,
) -> AbstractContextManager[Span | None]:
    """A piece of work, for the length of a block: what is begun and recorded in it belongs to it.

    Args:
        name: Of the kind of work; no ids.
        parent: A traceparent; None: it belongs to what this task does.
        kind: What it is to those on the other side.
        attributes: As of `Span.note`.
        root: Begins a trace where there is none.
    """
    if _tracing is None:
        return _OFF
    return _within(_tracing, _tracing.begin(name, parent, kind, attributes or {}, root=root))


@contextmanager
def _within(tracing: _Tracing, begun: Span | None) -> Iterator[Span | None]:
    if begun is None:
        yield None
        return
    with tracing.current(begun):
        try:
            yield begun
        except BaseException as error:
            begun.fail(type(error).__name__)
            raise
        finally:
            begun.end()
