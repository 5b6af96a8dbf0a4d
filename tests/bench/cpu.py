"""CPU time of processes, as the kernel counts it: unlike a rate it says the same on a busy machine."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PARENT, _USER, _CHILDREN = 1, 11, 15


def cpu_seconds(roots: tuple[int, ...]) -> float:
    """Of processes with all their descendants, ended ones that were waited for too."""
    return sum(cpu_by_process(roots).values())


def cpu_by_process(roots: tuple[int, ...]) -> dict[int, float]:
    """Of processes and each of their descendants, by pid; of each with its own that ended and were waited for."""
    stats = {int(path.name): _stat(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        if fields:
            children.setdefault(int(fields[_PARENT]), []).append(pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, [])
    return {pid: sum(map(int, stats[pid][_USER:_CHILDREN])) / _TICKS for pid in found if stats.get(pid)}


def _stat(path: Path) -> list[str]:
    """From the state on, which follows the program's name; empty: it has gone."""
    try:
        return (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
