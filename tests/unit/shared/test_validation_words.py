"""The sentences of msgspec and Litestar that `shared.web.validation` reads: what they say today, word for word.

An upgrade that rewords one, or says a new one of what the services ask, fails here by its name.
"""

import re
from collections.abc import Iterator
from datetime import date, datetime, time
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import pytest
from litestar import Litestar, Request, Response, get
from litestar.exceptions import ValidationException
from litestar.params import FromHeader, FromQuery, Parameter
from litestar.testing import TestClient
from msgspec import Meta

from shared.errors import InvalidInput
from shared.web import validation
from shared.web.validation import Body, decode_body, parameter_problems
from shared.web.verification import VerifyRequest


class Colour(StrEnum):
    RED = "red"


class Sentence(NamedTuple):
    """One that msgspec says."""

    annotation: Any
    value: Any
    said: str
    """By msgspec."""
    kind: str
    told: str
    """To the user."""


LETTER = Annotated[str, Meta(pattern="^a$")]
HINTED = Annotated[str, Meta(pattern="^a$", description="Must be an a")]
NOT_ALLOWED = "The text has characters or a form that are not allowed"
SENTENCES = {
    "empty text": Sentence(
        Annotated[str, Meta(min_length=1)], "", "Expected `str` of length >= 1", "too_short", "Must not be empty"
    ),
    "text too short": Sentence(
        Annotated[str, Meta(min_length=2)],
        "a",
        "Expected `str` of length >= 2",
        "too_short",
        "Must be at least 2 characters",
    ),
    "list too short": Sentence(
        Annotated[list[int], Meta(min_length=2)],
        [1],
        "Expected `array` of length >= 2",
        "too_short",
        "Must be at least 2 entries",
    ),
    "mapping too short": Sentence(
        Annotated[dict[str, int], Meta(min_length=2)],
        {"a": 1},
        "Expected `object` of length >= 2",
        "too_short",
        "Must be at least 2 entries",
    ),
    "text too long": Sentence(
        Annotated[str, Meta(max_length=1)],
        "aa",
        "Expected `str` of length <= 1",
        "too_long",
        "Must be at most 1 characters",
    ),
    "list too long": Sentence(
        Annotated[list[int], Meta(max_length=1)],
        [1, 2],
        "Expected `array` of length <= 1",
        "too_long",
        "Must be at most 1 entries",
    ),
    "mapping too long": Sentence(
        Annotated[dict[str, int], Meta(max_length=1)],
        {"a": 1, "b": 2},
        "Expected `object` of length <= 1",
        "too_long",
        "Must be at most 1 entries",
    ),
    "pattern": Sentence(LETTER, "b", "Expected `str` matching regex '^a$'", "string_pattern_mismatch", NOT_ALLOWED),
    "pattern with a hint": Sentence(
        HINTED, "b", "Expected `str` matching regex '^a$'", "string_pattern_mismatch", "Must be an a"
    ),
    "optional pattern": Sentence(
        HINTED | None, "b", "Expected `str` matching regex '^a$'", "string_pattern_mismatch", "Must be an a"
    ),
    "integer below": Sentence(
        Annotated[int, Meta(ge=1)], 0, "Expected `int` >= 1", "greater_than_equal", "Must be at least 1"
    ),
    "integer at an excluded lower bound": Sentence(
        Annotated[int, Meta(gt=1)], 1, "Expected `int` >= 2", "greater_than_equal", "Must be at least 2"
    ),
    "integer above": Sentence(
        Annotated[int, Meta(le=1)], 2, "Expected `int` <= 1", "less_than_equal", "Must be at most 1"
    ),
    "integer at an excluded upper bound": Sentence(
        Annotated[int, Meta(lt=1)], 1, "Expected `int` <= 0", "less_than_equal", "Must be at most 0"
    ),
    "integer below a negative bound": Sentence(
        Annotated[int, Meta(ge=-3)], -4, "Expected `int` >= -3", "greater_than_equal", "Must be at least -3"
    ),
    "huge integer": Sentence(
        Annotated[int, Meta(le=5)], 10**30, "Expected `int` <= 5", "less_than_equal", "Must be at most 5"
    ),
    "number below": Sentence(
        Annotated[float, Meta(ge=0.5)], 0.1, "Expected `float` >= 0.5", "greater_than_equal", "Must be at least 0.5"
    ),
    "number above": Sentence(
        Annotated[float, Meta(le=24)], 25, "Expected `float` <= 24.0", "less_than_equal", "Must be at most 24"
    ),
    "number at an excluded lower bound": Sentence(
        Annotated[float, Meta(gt=0)], 0, "Expected `float` > 0.0", "greater_than", "Must be more than 0"
    ),
    "number at an excluded upper bound": Sentence(
        Annotated[float, Meta(lt=1)], 1, "Expected `float` < 1.0", "less_than", "Must be less than 1"
    ),
    "number above a large bound": Sentence(
        Annotated[float, Meta(le=1e20)], 1e21, "Expected `float` <= 1e+20", "less_than_equal", "Must be at most 1e+20"
    ),
    "number below a small bound": Sentence(
        Annotated[float, Meta(ge=1e-7)],
        0,
        "Expected `float` >= 1e-07",
        "greater_than_equal",
        "Must be at least 1e-07",
    ),
    "optional number at an excluded lower bound": Sentence(
        Annotated[float, Meta(gt=0)] | None, 0, "Expected `float` > 0.0", "greater_than", "Must be more than 0"
    ),
    "enum": Sentence(Colour, "blue", "Invalid enum value 'blue'", "literal_error", "Invalid enum value 'blue'"),
    "literal text": Sentence(
        Literal["red"], "blue", "Invalid enum value 'blue'", "literal_error", "Invalid enum value 'blue'"
    ),
    "literal number": Sentence(Literal[1], 2, "Invalid enum value 2", "literal_error", "Invalid enum value 2"),
    "no text": Sentence(str, 1, "Expected `str`, got `int`", "string_type", "Expected str, got int"),
    "neither text nor null": Sentence(
        str | None, 1, "Expected `str | null`, got `int`", "string_type", "Expected str | null, got int"
    ),
    "no integer": Sentence(int, "a", "Expected `int`, got `str`", "int_type", "Expected int, got str"),
    "neither integer nor null": Sentence(
        int | None, 1.5, "Expected `int | null`, got `float`", "int_type", "Expected int | null, got float"
    ),
    "no number": Sentence(float, "a", "Expected `float`, got `str`", "float_type", "Expected float, got str"),
    "no boolean": Sentence(bool, 1, "Expected `bool`, got `int`", "bool_type", "Expected bool, got int"),
    "no mapping": Sentence(dict[str, str], 1, "Expected `object`, got `int`", "dict_type", "Expected object, got int"),
    "no list": Sentence(list[str], 1, "Expected `array`, got `int`", "list_type", "Expected array, got int"),
    "no text in a list": Sentence(
        list[str], [1], "Expected `str`, got `int` - at `$[0]`", "string_type", "Expected str, got int"
    ),
    "UUID": Sentence(UUID, "a", "Invalid UUID", "value_error", "Invalid UUID"),
    "time with date": Sentence(
        datetime, "a", "Invalid RFC3339 encoded datetime", "value_error", "Invalid RFC3339 encoded datetime"
    ),
    "date": Sentence(date, "a", "Invalid RFC3339 encoded date", "value_error", "Invalid RFC3339 encoded date"),
    "time": Sentence(time, "a", "Invalid RFC3339 encoded time", "value_error", "Invalid RFC3339 encoded time"),
    "number beyond every float": Sentence(float, 10**400, "Number out of range", "value_error", "Number out of range"),
}
IN_A_MAPPING = {
    "no text in a mapping": Sentence(
        dict[str, str], 1, "Expected `str`, got `int` - at `$[...]`", "string_type", "Expected str, got int"
    ),
    "text too long in a mapping": Sentence(
        dict[str, Annotated[str, Meta(max_length=1)]],
        "aa",
        "Expected `str` of length <= 1 - at `$[...]`",
        "too_long",
        "Must be at most 1 characters",
    ),
    "pattern of a mapping's key": Sentence(
        dict[Annotated[str, Meta(pattern="^a$")], str],
        "aa",
        "Expected `str` matching regex '^a$' - at `key` in `$`",
        "string_pattern_mismatch",
        NOT_ALLOWED,
    ),
}


def said(value: Any, annotation: Any, *, strict: bool = True) -> str:
    with pytest.raises(msgspec.ValidationError) as refusal:
        msgspec.convert(value, annotation, strict=strict)
    return str(refusal.value)


def matching(message: str) -> str | None:
    """The pattern of the vocabulary that reads the message."""
    text = message.split(" - at `", maxsplit=1)[0]
    return next((pattern.pattern for pattern, _ in validation._MESSAGES if pattern.search(text)), None)


def problems_of(annotation: Any, value: Any) -> list[tuple[str, tuple[str | int, ...], str]]:
    model = msgspec.defstruct("Model", [("field", annotation)], forbid_unknown_fields=True)
    with pytest.raises(InvalidInput) as refusal:
        decode_body(msgspec.json.encode({"field": value}), model)
    return [(problem.type, problem.loc, problem.msg) for problem in refusal.value.problems]


@pytest.mark.parametrize("name", SENTENCES)
def test_a_value_is_refused_in_these_words_and_told_in_ours(name: str) -> None:
    sentence = SENTENCES[name]
    assert said(sentence.value, sentence.annotation) == sentence.said
    if sentence.value != 10**400:  # in a body, that is no JSON for msgspec
        assert problems_of(sentence.annotation, sentence.value) == [(sentence.kind, ("body", "field"), sentence.told)]


@pytest.mark.parametrize("name", IN_A_MAPPING)
def test_an_entry_of_a_mapping_is_refused_in_these_words_and_told_in_ours(name: str) -> None:
    sentence = IN_A_MAPPING[name]
    assert said({"key": sentence.value}, sentence.annotation) == sentence.said
    assert problems_of(sentence.annotation, {"key": sentence.value}) == [
        (sentence.kind, ("body", "field", "key"), sentence.told)
    ]


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, "a", "Expected `int`, got `str`"),
        (int, "1.5", "Expected `int`, got `str`"),
        (int, "9" * 5000, "Integer value out of range"),
        (float, "1e999", "Number out of range"),
        (bool, "maybe", "Expected `bool`, got `str`"),
        (bool | None, "maybe", "Expected `bool | null`, got `str`"),
        (Annotated[int, Meta(ge=1)], "0", "Expected `int` >= 1"),
        (Colour, "blue", "Invalid enum value 'blue'"),
        (UUID, "a", "Invalid UUID"),
        (datetime, "a", "Invalid RFC3339 encoded datetime"),
    ],
)
def test_a_parameter_is_refused_in_the_words_of_a_body(annotation: Any, value: str, message: str) -> None:
    assert said(value, annotation, strict=False) == message
    assert matching(message)


def test_every_word_of_the_vocabulary_is_said_by_msgspec() -> None:
    provoked = {matching(said(s.value, s.annotation)) for s in SENTENCES.values()}
    assert provoked == {pattern.pattern for pattern, _ in validation._MESSAGES}


def test_every_alternative_of_the_vocabulary_is_said_by_msgspec() -> None:
    sentences = [said(s.value, s.annotation) for s in SENTENCES.values()] + [said("9" * 5000, int, strict=False)]
    for pattern, _ in validation._MESSAGES:
        for alternative in alternatives(pattern.pattern):
            assert any(re.search(alternative, sentence) for sentence in sentences), alternative


def alternatives(pattern: str) -> list[str]:
    """`a(b|c)|d` as `ab`, `ac` and `d`."""
    group = re.search(r"\((\w+(?:\|\w+)+)\)", pattern)
    if group is None:
        return pattern.split("|")
    return [pattern.replace(group[0], word) for word in group[1].split("|")]


def bodies() -> dict[str, type[msgspec.Struct]]:
    """Every struct that a service reads from a body."""
    for service in ("auth", "jobs", "disks", "capacity"):
        import_module(f"services.{service}.app")
    models: dict[str, type[msgspec.Struct]] = {"VerifyRequest": VerifyRequest}
    kinds: list[type[Any]] = [Body]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        model = getattr(kind, "model_type", None)
        if isinstance(model, type) and model.__module__.startswith("services."):
            models[model.__name__] = model
    return models


def fields() -> Iterator[Any]:
    for name, model in bodies().items():
        for field in msgspec.structs.fields(model):
            yield pytest.param(field.type, id=f"{name}.{field.encode_name}")


NASTY: tuple[Any, ...] = (
    None,
    True,
    0,
    1,
    -1,
    10**9,
    -(10**9),
    10**30,
    10**400,
    0.0,
    1.5,
    -1.5,
    1e300,
    "",
    "a",
    " ",
    "\x00",
    "é",
    "0",
    "a" * 100_000,
    [],
    [1],
    ["a"],
    [None],
    ["a"] * 1000,
    [[]],
    {},
    {"": ""},
    {"a": 1},
    {"a": {}},
    {"a": "\x00"},
    {"a" * 9999: "a"},
    {"A": "a" * 1_000_000},
    {f"A{number}": "a" for number in range(1000)},
)


def refusal_of(value: Any, annotation: Any) -> str | None:
    try:
        msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        return str(error)
    return None


@pytest.mark.parametrize("annotation", list(fields()))
def test_whatever_is_sent_in_a_field_of_a_body_msgspec_refuses_in_words_that_are_known(annotation: Any) -> None:
    refusals = {refusal for value in NASTY if (refusal := refusal_of(value, annotation))}
    assert refusals
    assert {refusal for refusal in refusals if not matching(refusal)} == set()


def test_the_bodies_of_all_services_are_found() -> None:
    assert {"AwsLoginRequest", "SubmitRequest", "ExtendRequest", "AddUserRequest", "PriorityRequest"} <= bodies().keys()
    assert {"CreateDiskRequest", "RenameDiskRequest"} <= bodies().keys()


@get("/")
async def search(
    word: FromQuery[str], mark: FromHeader[str], limit: FromQuery[Annotated[int, Parameter(ge=1, le=500)]] = 5
) -> None:
    del word, mark, limit


def told(query: dict[str, str], headers: dict[str, str]) -> list[tuple[str, tuple[str | int, ...], str]]:
    """What Litestar finds wrong, as we read it."""

    def answer(_: Request[Any, Any, Any], error: ValidationException) -> Response[Any]:
        return Response([(problem.type, problem.loc, problem.msg) for problem in parameter_problems(error)])

    app = Litestar([search], exception_handlers={ValidationException: answer})
    with TestClient(app) as client:
        return [
            (kind, tuple(loc), message) for kind, loc, message in client.get("/", params=query, headers=headers).json()
        ]


def test_litestar_says_which_parameter_is_missing_in_words_that_are_known() -> None:
    assert told({}, {"mark": "a"}) == [("missing", ("query", "word"), "Field required")]
    assert told({"word": "a"}, {}) == [("missing", ("header", "mark"), "Field required")]


def test_litestar_says_of_msgspec_what_is_wrong_with_a_parameter() -> None:
    wrong = {"word": "a", "limit": "many"}
    large = {"word": "a", "limit": "501"}
    assert told(wrong, {"mark": "a"}) == [("int_type", ("query", "limit"), "Expected int, got str")]
    assert told(large, {"mark": "a"}) == [("less_than_equal", ("query", "limit"), "Must be at most 500")]
