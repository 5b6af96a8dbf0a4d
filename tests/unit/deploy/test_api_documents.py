"""The API's documents against the code, and which changes of events they let through."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from deploy.api.compatibility import breaking_changes
from deploy.api.generate import EVENTS, HERE, documents, text_of
from tests.unit.shared.test_contracts import ALL_EVENTS

MADE = documents()
Document = dict[str, Any]


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_document_is_what_the_code_makes(name: str) -> None:
    assert (HERE / name).read_text() == text_of(MADE[name]), "run `make api`"


@pytest.mark.parametrize("name", sorted(name for name in MADE if name != EVENTS))
def test_every_tag_of_a_route_is_described(name: str) -> None:
    document = MADE[name]
    used = {tag for item in document["paths"].values() for operation in item.values() for tag in operation["tags"]}
    assert used <= {tag["name"] for tag in document["tags"]}


def test_no_document_is_left_over() -> None:
    assert {path.name for path in HERE.glob("*.json")} == set(MADE)


def test_every_event_has_a_channel_a_message_and_a_schema() -> None:
    document = MADE[EVENTS]
    names = {f"{event.DOMAIN}.{event.EVENT}" for event in ALL_EVENTS}
    assert set(document["channels"]) == set(document["operations"]) == set(document["components"]["messages"]) == names
    assert {event.__name__ for event in ALL_EVENTS} <= set(document["components"]["schemas"])
    assert document["channels"]["jobs.started"]["address"] == "gpudev.v1.jobs.started.{entity}"


def test_every_reference_leads_somewhere() -> None:
    document = MADE[EVENTS]

    def follow(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found = document
                for part in value["$ref"].removeprefix("#/").split("/"):
                    found = found[part]
            for one in value.values():
                follow(one)
        elif isinstance(value, list):
            for one in value:
                follow(one)

    follow(document)


def schema(document: Document, name: str) -> Document:
    found: Document = document["components"]["schemas"][name]
    return found


def drop_event(document: Document) -> None:
    del document["channels"]["jobs.started"]


def move_event(document: Document) -> None:
    document["channels"]["jobs.started"]["address"] = "gpudev.v2.jobs.started.{entity}"


def drop_field(document: Document) -> None:
    del schema(document, "JobStarted")["properties"]["node"]


def change_type(document: Document) -> None:
    schema(document, "JobStarted")["properties"]["epoch"]["type"] = "string"


def let_a_field_be_missing(document: Document) -> None:
    schema(document, "JobStarted")["required"].remove("node")


def require_a_new_field(document: Document) -> None:
    schema(document, "JobStarted")["properties"]["rack"] = {"type": "string"}
    schema(document, "JobStarted")["required"].append("rack")


def add_a_value(document: Document) -> None:
    schema(document, "JobStatus")["enum"].append("paused")


def rename_field(document: Document) -> None:
    fields = schema(document, "CloudEvent")["properties"]
    fields["number"] = fields.pop("sequence")


@pytest.mark.parametrize(
    "change",
    [
        drop_event,
        move_event,
        drop_field,
        change_type,
        let_a_field_be_missing,
        require_a_new_field,
        add_a_value,
        rename_field,
    ],
)
def test_a_change_that_breaks_a_reader_is_refused(change: Callable[[Document], None]) -> None:
    changed = copy.deepcopy(MADE[EVENTS])
    change(changed)
    assert breaking_changes(MADE[EVENTS], changed)


def test_additions_are_let_through() -> None:
    changed = copy.deepcopy(MADE[EVENTS])
    schema(changed, "JobStarted")["properties"]["rack"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    schema(changed, "JobStarted")["properties"]["node"]["description"] = "Where it runs."
    for section in (changed["channels"], changed["components"]["messages"]):
        section["jobs.paused"] = copy.deepcopy(section["jobs.started"])
    assert not breaking_changes(MADE[EVENTS], changed)


def test_a_released_document_says_nothing_of_secrets() -> None:
    text = json.dumps(MADE[EVENTS]).lower()
    assert not [word for word in ("jupyter_token", "env_vars", "secret_access_key", "api_key") if word in text]
