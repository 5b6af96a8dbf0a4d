"""What a command prints: tables and times for people, JSON for programs."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any) -> None:
    """JSON, for programs: as the API answers, with times in UTC."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")
    sys.stdout.flush()


def print_line(text: str) -> None:
    """One line on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """One line beside the output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table; in a pipe its cells are not cut."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        made.add_column(head, overflow="fold", no_wrap=not sys.stdout.isatty())
    for row in rows:
        made.add_row(*(Text(shown(cell)) for cell in row))
    return made


def print_table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print one."""
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, highlight=False).print(table(heads, rows), crop=False)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Names and values, those that there are, one a line."""
    known = [(name, shown(value)) for name, value in fields if value not in (None, "", [])]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        print_line(f"{name:<{width}}  {value}")


def shown(value: Any) -> str:
    """A value as people read it; times are local."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
