"""The longest that one body of each route may hold up the event loop, on the processor's own clock."""

import pkgutil
import time
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import msgspec
import pytest
from litestar import Controller
from litestar.dto import AbstractDTO
from litestar.handlers import HTTPRouteHandler

from services.jobs.schemas.requests import SubmitBatchBody, SubmitRequest
from shared.errors import InvalidInput
from shared.web.body import LARGE_BODY_BYTES, SMALL_BODY_BYTES

_SERVICES = ("auth", "jobs", "disks", "capacity")
_SECONDS = 0.15


def handler_modules() -> Iterator[ModuleType]:
    """Every module of the services that has handlers."""
    for service in _SERVICES:
        room = import_module(f"services.{service}.api")
        yield room
        for module in pkgutil.iter_modules(getattr(room, "__path__", ())):
            yield import_module(f"{room.__name__}.{module.name}")


def routes() -> dict[str, tuple[type[AbstractDTO[Any]], int]]:
    """The decoder and the limit of every route that reads a body."""
    found = {}
    for module in handler_modules():
        for controller in vars(module).values():
            if isinstance(controller, type) and issubclass(controller, Controller) and controller is not Controller:
                for handler in vars(controller).values():
                    if isinstance(handler, HTTPRouteHandler) and isinstance(handler.dto, type):
                        limit = handler.request_max_body_size
                        size = limit if isinstance(limit, int) else SMALL_BODY_BYTES
                        found[f"{module.__name__}:{handler.operation_id}"] = (handler.dto, size)
    return found


def fields(size: int, model: type[msgspec.Struct]) -> bytes:
    """As many unknown fields as there is room for."""
    del model
    number = size // 12
    return b"{" + b",".join(b'"%x":1' % index for index in range(number)) + b"}"


def nested(size: int, model: type[msgspec.Struct]) -> bytes:
    """As deep as there is room for."""
    name = model.__struct_fields__[0].encode()
    half = (size - 40) // 2
    return b'{"' + name + b'":' + b"[" * half + b"]" * half + b"}"


def mapping(size: int, model: type[msgspec.Struct]) -> bytes:
    """Every field a mapping of as many entries as there is room for."""
    names = model.__struct_fields__
    number = size // len(names) // 12
    entries = b"{" + b",".join(b'"%x":1' % index for index in range(number)) + b"}"
    return b"{" + b",".join(b'"' + name.encode() + b'":' + entries for name in names) + b"}"


def texts(size: int, model: type[msgspec.Struct]) -> bytes:
    """Every field a text as long as there is room for."""
    names = model.__struct_fields__
    text = b"a-" * (size // len(names) // 2 - 20)
    return b"{" + b",".join(b'"' + name.encode() + b'":"' + text + b'"' for name in names) + b"}"


def digits(size: int, model: type[msgspec.Struct]) -> bytes:
    """Every field a number as long as there is room for."""
    names = model.__struct_fields__
    number = b"9" * (size // len(names) - 40)
    return b"{" + b",".join(b'"' + name.encode() + b'":' + number for name in names) + b"}"


def repeated(size: int, model: type[msgspec.Struct]) -> bytes:
    """One field again and again."""
    name = model.__struct_fields__[0].encode()
    number = size // (len(name) + 8)
    return b"{" + b",".join(b'"' + name + b'":"a"' for _ in range(number)) + b"}"


@pytest.mark.parametrize("worst", [fields, nested, mapping, texts, digits, repeated], ids=lambda worst: worst.__name__)
@pytest.mark.parametrize("route", sorted(routes()))
def test_the_worst_body_of_a_route_is_judged_before_anybody_waits(route: str, worst: Any) -> None:
    decoder, size = routes()[route]
    model = decoder.model_type
    body = worst(size, model)
    assert len(body) <= size
    took, told = [], 0
    for _ in range(3):
        began = time.thread_time()
        try:
            decoder.decode_bytes(decoder.__new__(decoder), body)
        except InvalidInput as error:
            told = len(error.told())
        took.append(time.thread_time() - began)
    assert min(took) < _SECONDS, took
    assert told <= 51


@pytest.mark.parametrize("worst", [fields, nested, mapping, texts, digits, repeated], ids=lambda worst: worst.__name__)
def test_the_worst_entries_of_a_batch_are_judged_before_anybody_waits(worst: Any) -> None:
    entry = worst(LARGE_BODY_BYTES // 500 - 50, SubmitRequest)
    body = b'{"jobs":[' + b",".join([entry] * 500) + b"]}"
    assert len(body) <= LARGE_BODY_BYTES
    took, told = [], 0
    for _ in range(3):
        began = time.thread_time()
        try:
            SubmitBatchBody.decode_bytes(SubmitBatchBody.__new__(SubmitBatchBody), body)
        except InvalidInput as error:
            told = len(error.told())
        took.append(time.thread_time() - began)
    assert min(took) < _SECONDS, took
    assert 0 < told <= 51


def test_every_route_with_a_body_is_among_them() -> None:
    assert {name.rpartition(":")[2] for name in routes()} == {
        "aws_login",
        "aws_signed_login",
        "console_login",
        "submit_jobs",
        "submit_job",
        "extend_job",
        "add_user",
        "prioritise_job",
        "create_disk",
        "rename_disk",
        "create_webhook",
    }
