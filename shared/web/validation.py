"""Bodies and parameters: strict decoding, and every problem of an input found, not only the first.

msgspec decodes strictly and stops at the first fault. So the good case costs one decode; only a refused body is read
again, field by field, to list all its problems.
"""

import re
from collections.abc import Generator, Sequence
from itertools import islice
from typing import Any, ClassVar, TypeVar

import msgspec
from litestar.dto import AbstractDTO
from litestar.dto.config import DTOConfig
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.exceptions import ValidationException
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition

from shared.errors import MAX_PROBLEMS, InvalidInput, Problem

StructT = TypeVar("StructT", bound=msgspec.Struct)

PLAIN_TEXT = "^[^\\x00-\\x1f\\x7f-\\x9f]*$(?!\\n)"
"""Pattern of text without control characters."""
MULTILINE_TEXT = "^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f]*$"
"""Pattern of text in which tabs and line ends are the only control characters."""

_MAX_NAME_SHOWN = 64
_MAX_INPUT_BYTES = 1024
"""Longer values are not repeated."""
_BOUND = re.compile(r"Expected `(\w+)[^`]*` (of length )?(>=|<=|>|<) (-?[0-9.e+-]+)")
_BOUND_WORDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_UNITS = {"_hours": " hours", "_gb": " GB", "_seconds": " seconds"}
"""Of a field, by the end of its name."""
_LENGTH_UNITS = {"str": " characters", "object": " entries", "array": " entries"}
_MAX_ITEMS_JUDGED = 200
"""Of a mapping that was refused as a whole: judging them one by one takes its time."""
_MESSAGES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"Expected `[^`]*` of length >= ", "too_short"),
        (r"Expected `[^`]*` of length <= ", "too_long"),
        (r"Expected `str` matching regex", "string_pattern_mismatch"),
        (r"Expected `[^`]*` >= ", "greater_than_equal"),
        (r"Expected `[^`]*` <= ", "less_than_equal"),
        (r"Expected `[^`]*` > ", "greater_than"),
        (r"Expected `[^`]*` < ", "less_than"),
        (r"Invalid enum value", "literal_error"),
        (r"Expected `str", "string_type"),
        (r"Expected `int", "int_type"),
        (r"Expected `float", "float_type"),
        (r"Expected `bool", "bool_type"),
        (r"Expected `object", "dict_type"),
        (r"Expected `array", "list_type"),
        (r"Invalid (UUID|RFC3339)", "value_error"),
        (r"Number out of range|Integer value out of range", "value_error"),
    )
)


class Body(AbstractDTO[StructT]):
    """Decodes a handler's `data` strictly: `@post(..., dto=Body[SubmitRequest], return_dto=None)`.

    Litestar's own decoding of bodies is lenient ("4" is taken for 4, true for 1) and stops at the first fault.
    """

    config = DTOConfig()
    SECRET_FIELDS: ClassVar[frozenset[str]] = frozenset()
    """Fields that may hold secrets: where there are any, neither they, nor fields that are unknown, which may be they
    by another name, nor the body as a whole are repeated in a problem."""

    def decode_bytes(self, value: bytes) -> StructT:
        """The body as the handler's struct.

        Raises:
            InvalidInput: With all problems.
        """
        try:
            return self.decode(value)
        except InvalidInput as error:
            problems = with_inputs(error.problems, value, self.model_type, self.SECRET_FIELDS)
            raise InvalidInput(problems, error.more) from None

    def decode(self, value: bytes) -> StructT:
        """The body as the handler's struct; services add what they ask of it beyond its form.

        Raises:
            InvalidInput: With all problems, without inputs.
        """
        return decode_body(value, self.model_type)

    @classmethod
    def create_for_field_definition(cls, *_: Any, **__: Any) -> None:
        """Nothing is generated: msgspec knows the struct."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference | Schema:
        """Schema of the struct itself."""
        del handler_id
        schema: Reference | Schema = schema_creator.for_field_definition(field_definition)
        return schema

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        """No transfer model is made."""
        del model_type
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        """No transfer model is made."""
        del field_definition
        return False


def decode_body(raw: bytes, model: type[StructT]) -> StructT:
    """JSON `raw` as `model`.

    Raises:
        InvalidInput: With all problems; none of them repeats a value.
    """
    try:
        return msgspec.json.decode(raw, type=model)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        problems, more = find_problems(raw, model)
    raise InvalidInput(problems or [Problem("value_error", ("body",), "The body is not valid")], more)


def find_problems(raw: bytes, model: type[msgspec.Struct]) -> tuple[list[Problem], int]:
    """The problems of a body that could not be decoded as `model`, and how many more unknown fields it has."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [Problem("json_invalid", ("body",), "The body is not valid JSON")], 0
    if not isinstance(body, dict):
        return [Problem("dict_type", ("body",), "The body must be a JSON object")], 0
    fields = {field.encode_name: field for field in msgspec.structs.fields(model)}
    problems = []
    for name, field in fields.items():
        if name in body:
            problems += _problems_of_value(body[name], field.type, ("body", name))
        elif field.required:
            problems.append(Problem("missing", ("body", name), "Field required"))
    if not model.__struct_config__.forbid_unknown_fields:
        return problems, 0
    unknown = [name for name in body if name not in fields]
    room = max(0, MAX_PROBLEMS - len(problems))
    problems += [
        Problem("extra_forbidden", ("body", name[:_MAX_NAME_SHOWN]), "There is no such field")
        for name in unknown[:room]
    ]
    return problems, len(unknown[room:])


def with_inputs(
    problems: Sequence[Problem], raw: bytes, model: type[msgspec.Struct], secret_fields: frozenset[str]
) -> list[Problem]:
    """The problems of a body, each with the value that it is about, where that can be no secret and is short."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return list(problems)
    known = {field.encode_name for field in msgspec.structs.fields(model)}
    return [with_input(problem, _input_of(problem, body, known, secret_fields)) for problem in problems]


def with_input(problem: Problem, value: Any) -> Problem:
    """The problem with its value, unless that is unset, too long or cannot be told."""
    try:
        told = value is not msgspec.UNSET and len(msgspec.json.encode(value)) <= _MAX_INPUT_BYTES
    except (TypeError, ValueError, OverflowError, RecursionError):
        told = False
    return msgspec.structs.replace(problem, input=value) if told else problem


def _input_of(problem: Problem, body: Any, known: set[str], secret_fields: frozenset[str]) -> Any:
    name = problem.loc[1] if len(problem.loc) > 1 else None
    is_secret = name in secret_fields or (secret_fields and name not in known)
    if not isinstance(body, dict) or problem.loc[0] != "body" or is_secret:
        return msgspec.UNSET
    if name not in body:  # missing: as a whole, without what may be secret
        return {field: value for field, value in body.items() if not secret_fields or field in known - secret_fields}
    value = body[name]
    for part in problem.loc[2:]:
        value = value.get(part, msgspec.UNSET) if isinstance(value, dict) else msgspec.UNSET
    return value


def parameter_problems(error: ValidationException) -> list[Problem]:
    """Problems of path, query and header parameters as Litestar found them."""
    extra = error.extra if isinstance(error.extra, list) else []
    problems = []
    for item in extra:
        source, key = str(getattr(item.get("source"), "value", item.get("source", "body"))), str(item.get("key", ""))
        if source == "body" or key in {"data", ""}:
            problems.append(Problem("missing", ("body",), "A JSON body is required"))
        else:
            kind, message = _describe(str(item.get("message", "")), name=key)
            problems.append(Problem(kind, (source, key), message))
    return problems or [_parameter_problem(error.detail)]


def _parameter_problem(detail: str) -> Problem:
    missing = re.search(r"Missing required (\w+) parameter '([^']+)'", detail)
    if missing:
        return Problem("missing", (missing[1], missing[2]), "Field required")
    return Problem("value_error", ("query",), "The parameters are not valid")


def _problems_of_value(value: Any, annotation: Any, loc: tuple[str | int, ...]) -> list[Problem]:
    try:
        msgspec.convert(value, type=annotation)
    except msgspec.ValidationError as error:
        items = _problems_of_items(value, annotation, loc)
        if items:
            return items
        kind, message = _describe(str(error), _hint(annotation), name=str(loc[-1]))
        return [Problem(kind, loc, message)]
    return []


def _problems_of_items(value: Any, annotation: Any, loc: tuple[str | int, ...]) -> list[Problem]:
    described = msgspec.inspect.type_info(annotation)
    kinds = described.types if isinstance(described, msgspec.inspect.UnionType) else (described,)
    plain = (kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind for kind in kinds)
    mapping = next((kind for kind in plain if isinstance(kind, msgspec.inspect.DictType)), None)
    if mapping is None or not isinstance(value, dict):
        return []
    item_type = _items_annotation(annotation)
    problems = []
    for name, item in islice(value.items(), _MAX_ITEMS_JUDGED):
        try:
            msgspec.convert({name: item}, type=item_type)
        except msgspec.ValidationError as error:
            kind, message = _describe(str(error))
            problems.append(Problem(kind, (*loc, name[:_MAX_NAME_SHOWN]), message))
    return problems


def _items_annotation(annotation: Any) -> Any:
    """The annotation without its own bounds, so that one item of a too long mapping is judged by itself."""
    while hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    for argument in getattr(annotation, "__args__", ()):
        inner = argument
        while hasattr(inner, "__metadata__"):
            inner = inner.__origin__
        if getattr(inner, "__origin__", None) is dict:
            return inner
    return annotation


def _hint(annotation: Any) -> str | None:
    """What the annotation's Meta says a good value is: `Meta(pattern=..., description="Must be ...")`."""
    for meta in getattr(annotation, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.pattern and meta.description:
            return str(meta.description)
    for argument in getattr(annotation, "__args__", ()):
        hint = _hint(argument)
        if hint:
            return hint
    return None


def _describe(message: str, hint: str | None = None, *, name: str = "") -> tuple[str, str]:
    text = message.split(" - at `", maxsplit=1)[0]
    kind = next((kind for pattern, kind in _MESSAGES if pattern.search(text)), "value_error")
    if kind == "string_pattern_mismatch":
        return kind, hint or "The text has characters or a form that are not allowed"
    bound = _BOUND.match(text)
    if bound:
        return kind, _bound_text(*bound.groups(), name=name)
    return kind, text.replace("`", "")


def _bound_text(kind: str, length: str | None, sign: str, number: str, *, name: str) -> str:
    if length and number == "1" and sign == ">=":
        return "Must not be empty"
    unit = _LENGTH_UNITS.get(kind, "") if length else next((u for end, u in _UNITS.items() if name.endswith(end)), "")
    return f"Must be {_BOUND_WORDS[sign]} {number.removesuffix('.0')}{unit}"
