"""The client's methods and models against the document that the services make of themselves."""

import inspect
import re
from typing import Any

import msgspec
import pytest

from gpudev import AsyncClient, Client
from gpudev.core import Request, Response, operation, streamed
from gpudev.operations import Operations
from tests.client.document import api_document, example_of

DOCUMENT = api_document()
ROUTES = {
    definition["operationId"]: (verb.upper(), path, definition)
    for path, item in DOCUMENT["paths"].items()
    for verb, definition in item.items()
}
SOCKETS = {"open_ssh"}
"""Routes that become a WebSocket; both clients have them."""
FIELDS = {"job_id", "disk_name", "operation_id", "key_prefix", "webhook_id", "user_id"}
BY_OWN_NAME = {"follow_job_logs": "get_job_logs"}
"""Second methods of a route."""
OTHER_NAMES = {"from": "first", "to": "last"}
"""Of query parameters that are no names in Python."""
NO_STRUCT = {"openapi", "get_job_logs", "follow_events", "follow_job_events"}
"""Routes whose answers are no JSON of one struct."""
KEYED = {
    "aws_login": {"Idempotency-Key"},
    "aws_signed_login": {"Idempotency-Key"},
    "console_login": {"Idempotency-Key"},
}
"""Headers that a route takes and has no use for."""


def body_fields(definition: dict[str, Any]) -> dict[str, Any]:
    content = definition.get("requestBody", {}).get("content", {}).get("application/json", {})
    return dict(example_of(DOCUMENT, content["schema"])) if content else {}


def arguments(steps: Any, definition: dict[str, Any]) -> dict[str, Any]:
    """Something for every parameter of a method."""
    body = body_fields(definition)
    query = {
        OTHER_NAMES.get(one["name"], one["name"]): example_of(DOCUMENT, one["schema"])
        for one in definition.get("parameters", ())
        if one["in"] == "query"
    }
    own = {"wait": 5, "idempotency_key": "k", "last_event_id": "i"}
    known = {**dict.fromkeys(FIELDS, "a name/with ä"), **query, **body, **own}
    return {name: known[name] for name in list(inspect.signature(steps).parameters)[1:]}


def first_request(method: str, route: str) -> Request:
    """What a method sends when all its parameters are given."""
    found = getattr(Operations, method)
    steps = found.steps if isinstance(found, operation) else found.stream
    client = Operations()
    client.retry_seconds = 0
    running = steps(client, **arguments(steps, ROUTES[route][2]))
    effect = next(running)
    return effect.request


def sent_by(route: str) -> list[Request]:
    return [first_request(name, route) for name in (route, *(n for n, of in BY_OWN_NAME.items() if of == route))]


def test_no_method_is_without_a_route_and_no_route_without_a_method() -> None:
    methods = {name for name, value in vars(Operations).items() if isinstance(value, operation)}
    methods |= {name for name, value in vars(Operations).items() if isinstance(value, streamed) and name in ROUTES}
    assert set(ROUTES) - methods == SOCKETS, "routes that no method calls"
    assert all(callable(getattr(client, name)) for name in SOCKETS for client in (AsyncClient, Client))
    assert methods - set(ROUTES) == {"wait_for_disk_operation"}, "methods of no route"


@pytest.mark.parametrize("route", sorted(set(ROUTES) - SOCKETS))
def test_a_method_sends_its_route_everything_that_it_takes(route: str) -> None:
    verb, path, definition = ROUTES[route]
    pattern = re.sub(r"\{\w+\}", "a%20name%2Fwith%20%C3%A4", path)
    parameters = definition.get("parameters", ())
    queries: set[str] = set()
    for request in sent_by(route):
        assert (request.method, request.path) == (verb, pattern)
        told = {one["name"] for one in parameters if one["in"] == "header"}
        assert {"Prefer", "Idempotency-Key", "Last-Event-ID"} & set(request.headers) == told | KEYED.get(route, set())
        assert msgspec.json.decode(request.body or b"{}").keys() == body_fields(definition).keys()
        assert request.public == (definition.get("security") == [])
        queries |= set(request.params)
    assert queries == {one["name"] for one in parameters if one["in"] == "query"}


@pytest.mark.parametrize("route", sorted(set(ROUTES) - SOCKETS - NO_STRUCT))
def test_a_model_has_every_field_of_an_answer(route: str) -> None:
    definition = ROUTES[route][2]
    told = example_of(DOCUMENT, definition["responses"]["200"]["content"]["application/json"]["schema"])
    assert fields_of(msgspec.to_builtins(read(route, told))) == fields_of(told)


@pytest.mark.parametrize("route", sorted(set(ROUTES) - SOCKETS - NO_STRUCT))
def test_fields_of_a_newer_service_are_passed_over(route: str) -> None:
    definition = ROUTES[route][2]
    told = example_of(DOCUMENT, definition["responses"]["200"]["content"]["application/json"]["schema"])
    assert read(route, {**told, "of_tomorrow": {"a": 1}}) == read(route, told)


def read(route: str, told: Any) -> Any:
    """What a method makes of an answer."""
    steps = getattr(Operations, route).steps
    client = Operations()
    client.retry_seconds = 0
    running = steps(client, **arguments(steps, ROUTES[route][2]))
    next(running)
    try:
        running.send(Response(200, {}, msgspec.json.encode(told)))
    except StopIteration as end:
        return end.value
    raise AssertionError("it wants more than one answer")


def fields_of(value: Any, at: str = "") -> set[str]:
    """Where there is something in a value."""
    if isinstance(value, dict):
        return {at}.union(*(fields_of(entry, f"{at}.{name}") for name, entry in value.items()))
    if isinstance(value, list):
        return {at}.union(*(fields_of(entry, f"{at}[]") for entry in value))
    return {at}


def test_followed_and_read_logs_are_one_route() -> None:
    assert isinstance(Operations.__dict__["follow_job_logs"], streamed)
    assert first_request("follow_job_logs", "get_job_logs").params["follow"] == "true"
