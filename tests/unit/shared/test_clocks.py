"""Who decides by the time is given a clock: the real one is read in one place."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path.relative_to(ROOT) for folder in ("shared", "services") for path in (ROOT / folder).rglob("*.py"))
READS = {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
    ("time", "monotonic"),
    ("time", "perf_counter"),
    ("time", "time"),
}
ALLOWED = {Path("shared/clock.py")}


def reads_of_a_clock(text: str) -> list[int]:
    """Lines that read one; to name `time.monotonic` as what an argument is by default reads nothing."""
    calls = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return [
        call.lineno
        for call in calls
        if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) and (call.value.id, call.attr) in READS
    ]


@pytest.mark.parametrize("text", ["now = datetime.now(UTC)", "if time.monotonic() > 1: pass", "f(lambda: time.time())"])
def test_a_reading_is_found(text: str) -> None:
    assert reads_of_a_clock(text) == [1]


def test_an_argument_is_no_reading() -> None:
    assert reads_of_a_clock("def f(stopwatch=time.monotonic, clock=utc_now): return clock() - stopwatch()") == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_clock_is_read_but_by_its_argument(path: Path) -> None:
    assert path in ALLOWED or reads_of_a_clock((ROOT / path).read_text()) == []
