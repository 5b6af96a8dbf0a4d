import inspect
import json
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts import auth, capacity, catalogue, disks, jobs
from shared.contracts.events import CloudEvent, EventData, event_subject, subject_token
from shared.routes import ROUTES, SERVICES, service_of

MODULES = (auth, capacity, disks, jobs)
GOLDEN = Path(__file__).parents[2] / "data" / "events.json"
RELEASED = GOLDEN.with_name("events_1.0.json")
"""Events as the first release wrote them: never edited."""
EXAMPLES: dict[type, Any] = {
    int: 7,
    str: "text",
    bool: True,
    UUID: UUID("3f2a8c1e-0000-4000-8000-000000000000"),
    datetime: datetime(2026, 1, 20, 18, 30, tzinfo=UTC),
    jobs.JobStatus: jobs.JobStatus.ACTIVE,
}


def events(module: ModuleType) -> list[type[EventData]]:
    found = [item for _, item in inspect.getmembers(module, inspect.isclass) if issubclass(item, EventData)]
    return [item for item in found if hasattr(item, "EVENT") and item.__module__ == module.__name__]


ALL_EVENTS = [event for module in MODULES for event in events(module)]


def example(event: type[EventData]) -> EventData:
    values = {}
    for field in msgspec.structs.fields(event):
        arguments = getattr(field.type, "__args__", (field.type,))
        values[field.name] = EXAMPLES[arguments[0]]
    return event(**values)


def document(event: type[EventData]) -> dict[str, Any]:
    data = example(event)
    envelope = CloudEvent(
        id=EXAMPLES[UUID],
        source=f"/gpudev/{event.DOMAIN}",
        type=event.type_name(),
        subject=data.entity_id,
        time=EXAMPLES[datetime],
        sequence=3,
        messageid=42,
        requestid="r-1",
        data=msgspec.Raw(msgspec.json.encode(data)),
    )
    return {"subject": event_subject(data), "body": json.loads(msgspec.json.encode(envelope))}


@pytest.mark.parametrize("event", ALL_EVENTS, ids=lambda event: event.type_name())
def test_an_event_looks_as_its_golden_file_says(event: type[EventData]) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert document(event) == golden[event.type_name()], (
        "events change by addition only: change the golden file knowingly"
    )


@pytest.mark.parametrize("name", json.loads(RELEASED.read_text()))
def test_an_event_of_a_former_release_is_read_for_ever(name: str) -> None:
    released = json.loads(RELEASED.read_text())[name]
    body = released["body"]
    event = next(event for event in ALL_EVENTS if event.type_name() == name)
    envelope = msgspec.json.decode(json.dumps(body), type=CloudEvent)
    data = msgspec.json.decode(envelope.data, type=event)
    assert body["data"].items() <= json.loads(msgspec.json.encode(data)).items()
    assert (event_subject(data), envelope.subject) == (
        json.loads(RELEASED.read_text())[name]["subject"],
        data.entity_id,
    )


def test_no_golden_event_has_been_dropped() -> None:
    assert set(json.loads(GOLDEN.read_text())) == {event.type_name() for event in ALL_EVENTS}


@pytest.mark.parametrize("event", ALL_EVENTS, ids=lambda event: event.type_name())
def test_a_reader_takes_fields_that_it_does_not_know(event: type[EventData]) -> None:
    body = json.loads(msgspec.json.encode(example(event)))
    assert msgspec.json.decode(json.dumps({**body, "added_later": 1}), type=event) == example(event)


@given(st.text(min_size=1, max_size=80))
def test_an_entity_is_one_token_of_a_subject_and_no_two_share_one(entity: str) -> None:
    token = subject_token(entity.encode("utf-8", "replace").decode())
    assert not set(token) & set(" .*>\t\r\n\x00")
    assert token.isascii()


@given(st.text(st.sampled_from("a.*%2E>~"), min_size=1), st.text(st.sampled_from("a.*%2E>~"), min_size=1))
def test_different_entities_have_different_tokens(first: str, second: str) -> None:
    assert (subject_token(first) == subject_token(second)) == (first == second)


@pytest.mark.parametrize(
    ("instance_type", "product", "gpu_type"),
    [
        ("p5.48xlarge", None, "h100"),
        ("p4d.24xlarge", "NVIDIA-H100-80GB-HBM3", "a100"),
        (None, "NVIDIA-H100-80GB-HBM3", "h100"),
        ("my-box", "NVIDIA-A100-SXM4-80GB", "a100"),
        (None, "NVIDIA-L40S", None),
        (None, "NVIDIA-L4", "l4"),
        ("P5.48XLARGE", None, None),
        (None, None, None),
    ],
)
def test_a_nodes_gpu_type_comes_from_its_labels(
    instance_type: str | None, product: str | None, gpu_type: str | None
) -> None:
    assert catalogue.gpu_type_of_node(instance_type, product) == gpu_type


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/v1/jobs", "jobs"),
        ("/v1/jobs/submit", "jobs"),
        ("/v1/jobsx", "auth"),
        ("/v1/keys/rotate", "auth"),
        ("/v1/gpu/availability", "capacity"),
        ("/v1/cluster/status", "capacity"),
        ("/v1/disks/a/rename", "disks"),
        ("/health", "auth"),
        ("/health/jobs", "jobs"),
        ("/health/other", "auth"),
        ("/docs/start.js", "auth"),
        ("/", "auth"),
    ],
)
def test_a_path_belongs_to_the_service_of_its_longest_row(path: str, service: str) -> None:
    assert service_of(path) == service


def test_every_row_names_a_service_and_no_path_twice() -> None:
    assert {route.service for route in ROUTES} == set(SERVICES)
    assert len({(route.path, route.exact) for route in ROUTES}) == len(ROUTES)
