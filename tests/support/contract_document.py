"""The contract as it is written: its endpoints, its examples, and what it means that an answer is like one of them."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONTRACT = Path(__file__).parents[1] / "data" / "api.md"
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_BLOCK = re.compile(r"\*\*(Request|Response[^:*]*):\*\*\n```json\n(.*?)```", re.DOTALL)
_SAID = {"status", "action", "message", "gpu_type", "instance_type", "type", "msg", "detail", "old_name", "new_name"}
"""Keys whose values are words of the contract; of the rest the form counts."""
_BY_NAME = {"availability", "by_gpu_type"}
"""Objects whose keys are names, not fields."""


@dataclass(frozen=True)
class Endpoint:
    """One of the contract's 20."""

    number: int
    method: str
    path: str
    request: Any
    """The example; None where there is none."""
    responses: dict[str, Any] = field(default_factory=dict)
    """Examples by their heading: `Response`, `Response (Success)`."""
    abridged: bool = False
    """The response leaves fields out."""


def endpoints() -> dict[int, Endpoint]:
    """The contract's endpoints by their number."""
    text = CONTRACT.read_text()
    parts = re.split(r"^### (\d+)\. ", text, flags=re.MULTILINE)
    found = {}
    for number, part in zip(parts[1::2], parts[2::2], strict=True):
        method, path = re.search(r"\*\*Endpoint:\*\* `(\w+) ([^`]+)`", part).groups()  # type: ignore[union-attr]
        blocks = {name: json.loads(_without_dots(block)) for name, block in _BLOCK.findall(part)}
        request = blocks.pop("Request", None)
        found[int(number)] = Endpoint(int(number), method, path, request, blocks, "..." in part.split("**Example")[0])
    return found


def sections() -> dict[str, list[tuple[str, str]]]:
    """Methods and paths of the contract's endpoints by the section that they are in, all in its order."""
    found: dict[str, list[tuple[str, str]]] = {}
    section = ""
    for heading, method, path in re.findall(
        r"^## (.+)$|^\*\*Endpoint:\*\* `(\w+) ([^`]+)`", CONTRACT.read_text(), re.MULTILINE
    ):
        section = heading or section
        if method:
            found.setdefault(section, []).append((method, path))
    return found


def error_examples() -> list[Any]:
    """The examples of errors: of any, and of a validation error."""
    text = CONTRACT.read_text().split("### Error Response Format")[1]
    return [json.loads(_without_dots(block)) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)[:2]]


def commands(number: int) -> str:
    """The shell commands of an endpoint's examples."""
    text = CONTRACT.read_text()
    part = re.split(r"^### (\d+)\. ", text, flags=re.MULTILINE)[2 * number].split("\n---\n")[0]
    return "".join(re.findall(r"```bash\n(.*?)```", part, re.DOTALL))


def quick_start() -> str:
    """The quick-start script."""
    return CONTRACT.read_text().split("## Quick Start Script")[1].split("```bash\n")[1].split("```")[0]


def assert_like(example: Any, answer: Any, *, abridged: bool = False, at: str = "") -> None:
    """The answer has the example's fields in its order, ours only after them, of its types, in its forms and words."""
    if isinstance(example, dict):
        _assert_fields_like(example, answer, abridged=abridged, at=at)
    elif isinstance(example, list):
        assert isinstance(answer, list), at
        for item in answer if example and isinstance(example[0], dict) else ():
            assert_like(example[0], item, abridged=abridged, at=f"{at}[]")
    else:
        _assert_value_like(example, answer, at)


def _assert_fields_like(example: dict[str, Any], answer: Any, *, abridged: bool, at: str) -> None:
    assert isinstance(answer, dict), at
    if at.rsplit(".", 1)[-1] in _BY_NAME:
        assert answer, at
        for name, entry in answer.items():
            assert_like(next(iter(example.values())), entry, at=f"{at}.{name}[]")
        return
    names = [name for name in answer if name in example] if abridged else list(answer)[: len(example)]
    assert names == list(example), f"{at}: {list(answer)}"
    for name, value in example.items():
        assert_like(value, answer[name], abridged=abridged, at=f"{at}.{name}")


def _assert_value_like(example: Any, answer: Any, at: str) -> None:
    if isinstance(example, str) and _MOMENT.fullmatch(example):
        assert (answer is None and at.endswith("last_used")) or _MOMENT.fullmatch(answer), f"{at}: {answer}"
    elif isinstance(example, str) and at.rsplit(".", 1)[-1] in _SAID and "[]." not in at:
        pattern = re.sub(r"\d{4}-\d\d-\d\d", r"\\d{4}-\\d\\d-\\d\\d", re.escape(example).replace(r"\-", "-"))
        pattern = pattern.replace(r"message\ ID:\ 42", r"message\ ID:\ \d+")
        assert re.fullmatch(pattern, answer), f"{at}: {answer!r} is not {example!r}"
    else:
        optional = answer is None and at.rsplit(".", 1)[-1] in {"reservation_id", "last_used"}
        assert optional or type(answer) is type(example), f"{at}: {answer!r} is no {type(example).__name__}"


def _without_dots(block: str) -> str:
    return re.sub(r",\s*\.\.\.\s*\n", "\n", block).replace("{...}", "{}")
