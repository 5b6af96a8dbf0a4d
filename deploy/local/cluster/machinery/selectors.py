"""Label and field selectors: parsing and matching."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.local.cluster.machinery.errors import bad_request

_LABEL_TOKEN = re.compile(r"\s*(==|!=|=|>|<|!|\(|\)|,|[^\s=!<>(),]+)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term of a label selector; `operator` is written as in `matchExpressions`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels satisfy the term; absent keys satisfy the negative operators."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                return self._compares(value)
        return False

    def _compares(self, value: str | None) -> bool:
        try:
            mine, other = int(value or ""), int(self.values[0])
        except (ValueError, IndexError):
            return False
        return mine > other if self.operator == "Gt" else mine < other


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A conjunction of requirements; without any it selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether every requirement holds."""
        return all(requirement.matches(labels) for requirement in self.requirements)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Equalities and inequalities over an object's selectable fields."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether every term holds; a field that is unset is the empty string."""
        return all((fields.get(path, "") == value) is equal for path, equal, value in self.terms)

    def value_of(self, path: str) -> str | None:
        """The value that the selector fixes for a field, or None."""
        return next((value for name, equal, value in self.terms if equal and name == path), None)


def parse_label_selector(text: str) -> LabelSelector:
    """Reads `a=b,c in (d,e),!f`; raises BadRequest."""
    parser = _LabelParser(text)
    return LabelSelector(tuple(parser.parse()))


def parse_field_selector(text: str, supported: frozenset[str]) -> FieldSelector:
    """Reads `metadata.name=a,status.phase!=b`; raises BadRequest, also for a field that cannot be selected."""
    terms: list[tuple[str, bool, str]] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"([^=!]+?)\s*(!=|==|=)\s*(.*)", part)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        if match[1] not in supported:
            raise bad_request(f"field label not supported: {match[1]}")
        terms.append((match[1], match[2] != "!=", match[3]))
    return FieldSelector(tuple(terms))


def requirements_of(expressions: list[dict[str, Any]]) -> list[Requirement]:
    """`matchExpressions` or `matchFields` as requirements."""
    return [Requirement(e["key"], e["operator"], tuple(e.get("values") or ())) for e in expressions]


class _LabelParser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._tokenize(text)

    def parse(self) -> list[Requirement]:
        found: list[Requirement] = []
        while self._tokens:
            found.append(self._requirement())
            if self._tokens and (self._take() != "," or not self._tokens):
                raise self._error()
        return found

    def _tokenize(self, text: str) -> list[str]:
        tokens, position = [], 0
        while position < len(text.rstrip()):
            match = _LABEL_TOKEN.match(text, position)
            if match is None:
                raise self._error()
            tokens.append(match[1])
            position = match.end()
        return tokens

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._take()
            return Requirement(self._word(), "DoesNotExist")
        key = self._word()
        match self._peek():
            case "=" | "==":
                self._take()
                return Requirement(key, "In", (self._value(),))
            case "!=":
                self._take()
                return Requirement(key, "NotIn", (self._value(),))
            case "in" | "notin" as word:
                self._take()
                return Requirement(key, "In" if word == "in" else "NotIn", self._values())
            case ">" | "<" as word:
                self._take()
                return Requirement(key, "Gt" if word == ">" else "Lt", (self._word(),))
        return Requirement(key, "Exists")

    def _values(self) -> tuple[str, ...]:
        if self._take() != "(":
            raise self._error()
        values = [self._value()]
        while self._peek() == ",":
            self._take()
            values.append(self._value())
        if self._take() != ")":
            raise self._error()
        return tuple(values)

    def _value(self) -> str:
        return "" if self._peek() in {",", ")", ""} else self._word()

    def _word(self) -> str:
        word = self._take()
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?", word):
            raise self._error()
        return word

    def _peek(self) -> str:
        return self._tokens[0] if self._tokens else ""

    def _take(self) -> str:
        if not self._tokens:
            raise self._error()
        return self._tokens.pop(0)

    def _error(self) -> Exception:
        return bad_request(f"unable to parse requirement: invalid label selector '{self._text}'")
