"""The AsyncAPI 3 document of the events, made of their structs (https://www.asyncapi.com/docs/reference/specification)."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from shared.contracts import auth, capacity, disks, jobs
from shared.contracts.events import STREAM, SUBJECT_ROOT, CloudEvent, EventData
from shared.field_docs import field_docs

_MODULES = (auth, jobs, capacity, disks)
_VERSION = "1.0.0"
_REFERENCE = "#/components/schemas/{name}"
_DESCRIPTION = (
    "Every change of state as a CloudEvent (1.0, structured JSON), on NATS and, for one's own, at `GET /v1/events`. "
    "Delivery is at least once: an event that comes again has the same `id`. The events of one `source` about one "
    "`subject` come in the order of their `sequence`. Events change by addition only: pass over fields, values of "
    "enumerations and types that you do not know."
)

Schema = dict[str, Any]


def event_types() -> Sequence[type[EventData]]:
    """Every event, by domain, in the order of the code."""
    return [
        item
        for module in _MODULES
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, EventData) and hasattr(item, "EVENT")
        if item.__module__ == module.__name__
    ]


def event_name(event: type[EventData]) -> str:
    """Such as `jobs.started`."""
    return f"{event.DOMAIN}.{event.EVENT}"


def asyncapi_document() -> Schema:
    """The document."""
    events = event_types()
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "GPU Dev events", "version": _VERSION, "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "channels": {event_name(event): _channel(event) for event in events},
        "operations": {event_name(event): _operation(event) for event in events},
        "components": {
            "messages": {event_name(event): _message(event) for event in events},
            "schemas": dict(_schemas(events)),
        },
    }


def _channel(event: type[EventData]) -> Schema:
    name = event_name(event)
    return {
        "address": f"{SUBJECT_ROOT}.{event.DOMAIN}.{event.EVENT}.{{entity}}",
        "description": f"Kept for 7 days in the JetStream stream {STREAM}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "parameters": {"entity": {"description": "The event's `subject`, percent-encoded as one token."}},
    }


def _operation(event: type[EventData]) -> Schema:
    name = event_name(event)
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
    }


def _message(event: type[EventData]) -> Schema:
    typed = {"type": {"const": event.type_name()}, "data": {"$ref": _REFERENCE.format(name=event.__name__)}}
    return {
        "name": event.type_name(),
        "title": event_name(event),
        "summary": _summary(event),
        "contentType": "application/cloudevents+json",
        "payload": {"allOf": [{"$ref": _REFERENCE.format(name="CloudEvent")}, {"type": "object", "properties": typed}]},
    }


def _summary(event: type[EventData]) -> str:
    """Its own words, not those of what it extends."""
    return " ".join((event.__doc__ or event_name(event).replace(".", " ")).split())


def _schemas(events: Sequence[type[EventData]]) -> Iterator[tuple[str, Schema]]:
    models: list[type[msgspec.Struct]] = [CloudEvent, *events]
    _, schemas = msgspec.json.schema_components(models, ref_template=_REFERENCE)
    texts = {model.__name__: field_docs(model) for model in models}
    for name in sorted(schemas):
        schema = schemas[name]
        for field, told in schema.get("properties", {}).items():
            if text := texts.get(name, {}).get(field):
                told["description"] = text
        yield name, schema
