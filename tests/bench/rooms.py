"""How a checkout is built: rooms, function lengths, imports between rooms, duplicates.

`python -m tests.bench.rooms [CHECKOUT ...]` prints one column a checkout; without one, this one. It reads files and
nothing else, so that it also reads an old checkout: a `git worktree` of an earlier commit, say.
"""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

FOLDERS = ("services", "shared", "deploy", "client", "tests")
LEFT_OUT = {".venv", "node_modules", "build", "__pycache__", ".local"}
NO_ROOM = {"__init__", "app", "migrations"}
"""`app` wires, so that it imports every room; migrations are imported by nobody."""
RUN = 6
"""Lines of a duplicate, at least."""


@dataclass
class Room:
    files: int = 0
    lines: int = 0


@dataclass
class Service:
    rooms: dict[str, Room] = field(default_factory=lambda: defaultdict(Room))
    functions: list[int] = field(default_factory=list)
    """Their lines."""
    arrows: set[tuple[str, str]] = field(default_factory=set)
    """From a room to one that it imports."""


@dataclass
class Report:
    services: dict[str, Service]
    folders: dict[str, Room]
    functions: list[int]
    fmt_skips: Counter[str]
    """By folder; a service by its own name."""
    runs: int
    """Duplicated runs of six lines and more: places beyond the first."""
    duplicated_lines: int


def read(checkout: Path) -> Report:
    """The report of a checkout."""
    texts = {path.relative_to(checkout): path.read_text() for path in _sources(checkout)}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    services = {name: Service() for name in sorted({path.parts[1] for path in texts if _is_in_service(path)})}
    folders: dict[str, Room] = defaultdict(Room)
    fmt_skips: Counter[str] = Counter()
    for path, text in texts.items():
        lines = text.count("\n")
        _count(folders[path.parts[0]], lines)
        fmt_skips[_place(path)] += sum(line.endswith("# fmt: skip") for line in text.splitlines())
        if _is_in_service(path):
            service = services[path.parts[1]]
            room = _room(path)
            _count(service.rooms[room], lines)
            service.functions += _function_lengths(trees[path])
            service.arrows |= {
                (room, other)
                for other in _imported_rooms(trees[path], path)
                if other != room and not NO_ROOM & {room, other}
            }
    runs, duplicated_lines = _duplicates(texts)
    functions = [length for path in texts if path.parts[0] != "tests" for length in _function_lengths(trees[path])]
    return Report(services, folders, functions, fmt_skips, runs, duplicated_lines)


def _sources(checkout: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((checkout / folder).rglob("*.py")):
            if not LEFT_OUT & set(path.relative_to(checkout).parts):
                yield path


def _is_in_service(path: Path) -> bool:
    return path.parts[0] == "services" and len(path.parts) > 2


def _place(path: Path) -> str:
    return path.parts[1] if _is_in_service(path) else path.parts[0]


def _room(path: Path) -> str:
    """A file or folder at a service's top level."""
    return path.parts[2].removesuffix(".py")


def _count(room: Room, lines: int) -> None:
    room.files += 1
    room.lines += lines


def _function_lengths(tree: ast.Module) -> list[int]:
    """From `def` to the last line, the docstring with it."""
    found = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in found]


def _imported_rooms(tree: ast.Module, path: Path) -> Iterator[str]:
    own = ["services", path.parts[1]]
    for node in ast.walk(tree):
        for name in _imported_names(node):
            parts = name.split(".")
            if parts[:2] == own and len(parts) > 2:
                yield parts[2]


def _imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _duplicates(texts: dict[Path, str]) -> tuple[int, int]:
    """Runs that stand elsewhere too, and their lines: each but the first. Blank lines, comments and imports apart."""
    lines = {path: _telling_lines(text) for path, text in texts.items()}
    seen: set[tuple[str, ...]] = set()
    runs = total = 0
    for path in sorted(lines):
        repeated: set[int] = set()
        starts = range(len(lines[path]) - RUN + 1)
        windows = [tuple(lines[path][start : start + RUN]) for start in starts]
        for start, window in enumerate(windows):
            if window in seen:
                repeated.update(range(start, start + RUN))
            seen.add(window)
        in_order = sorted(repeated)
        runs += bool(in_order) + sum(later != earlier + 1 for earlier, later in pairwise(in_order))
        total += len(in_order)
    return runs, total


def _telling_lines(text: str) -> list[str]:
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith(("#", "import ", "from "))]


def _spread(lengths: list[int]) -> str:
    return f"{median(lengths):.0f} / {quantiles(lengths, n=10)[-1]:.0f}" if len(lengths) > 1 else "-"


def _rows(report: Report) -> dict[str, str]:
    rows: dict[str, str] = {}
    for name, service in report.services.items():
        rows[f"{name}: rooms"] = str(len(service.rooms.keys() - NO_ROOM))
        rows[f"{name}: imports between rooms"] = str(len(service.arrows))
        rows[f"{name}: function length, median / p90"] = _spread(service.functions)
    rows["functions outside of tests, median / p90"] = _spread(report.functions)
    for folder, room in report.folders.items():
        rows[f"{folder}: files / lines"] = f"{room.files} / {room.lines}"
    for place in sorted({*report.services, *report.folders} - {"services"}):
        rows[f"fmt: skip in {place}"] = str(report.fmt_skips[place])
    rows["fmt: skip"] = str(report.fmt_skips.total())
    rows[f"duplicated runs of {RUN} lines and more"] = str(report.runs)
    rows["lines in them"] = str(report.duplicated_lines)
    return rows


def _room_rows(report: Report) -> dict[str, str]:
    return {
        f"{name}/{room}": f"{counted.files} / {counted.lines}"
        for name, service in report.services.items()
        for room, counted in service.rooms.items()
        if room != "__init__"
    }


def _print_table(title: str, names: list[str], columns: list[dict[str, str]]) -> None:
    keys = dict.fromkeys(key for column in columns for key in column)
    width = max(map(len, [title, *keys]))
    print(f"{title:<{width}}  " + "  ".join(f"{name:>16}" for name in names))
    for key in keys:
        print(f"{key:<{width}}  " + "  ".join(f"{column.get(key, '-'):>16}" for column in columns))
    print()


def main(arguments: list[str]) -> None:
    """Print the table."""
    checkouts = [Path(argument) for argument in arguments] or [Path(__file__).parents[2]]
    if strays := [str(checkout) for checkout in checkouts if not (checkout / "services").is_dir()]:
        sys.exit(f"No checkout: {', '.join(strays)}. Give folders; `git worktree add --detach OLD COMMIT` makes one")
    reports = [read(checkout) for checkout in checkouts]
    names = [checkout.resolve().name for checkout in checkouts]
    _print_table("What", names, [_rows(report) for report in reports])
    _print_table("Files / lines of a room", names, [_room_rows(report) for report in reports])


if __name__ == "__main__":
    main(sys.argv[1:])
