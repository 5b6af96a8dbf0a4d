"""What is in a directory: names to a small depth, sizes of everything."""

import json
import os
from pathlib import Path
from typing import Any

MAX_DEPTH, MAX_ENTRIES = 3, 2000
_DEEPEST = 200
"""What lies deeper is not counted."""


def list_tree(directory: Path) -> dict[str, Any]:
    """The listing as the tools' contract has it. Raises OSError when the directory itself cannot be read.

    Links are not followed; what cannot be read, or goes while it is read, counts nothing.
    """
    os.scandir(directory).close()
    walk = _Walk()
    size = walk.add(str(directory), "", 1)
    return {"size_bytes": size, "entries": walk.entries, "truncated": walk.truncated}


def fitting(listing: dict[str, Any], limit_bytes: int) -> bytes:
    """The listing as JSON, with as many of its entries as fit."""
    while len(text := json.dumps(listing).encode()) > limit_bytes and listing["entries"]:
        keep = min(len(listing["entries"]) - 1, len(listing["entries"]) * limit_bytes // len(text))
        listing = {**listing, "entries": listing["entries"][:keep], "truncated": True}
    return text


class _Walk:
    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.truncated = False

    def add(self, directory: str, prefix: str, depth: int) -> int:
        """Add the entries of a directory; the bytes of the files below it."""
        if depth > _DEEPEST:
            self.truncated = True
            return 0
        try:
            with os.scandir(directory) as found:
                children = sorted(found, key=lambda child: child.name)
        except OSError:
            return 0
        return sum(self._add_one(child, prefix, depth) for child in children)

    def _add_one(self, child: os.DirEntry[str], prefix: str, depth: int) -> int:
        kind = _kind(child)
        path = prefix + os.fsencode(child.name).decode(errors="replace")
        entry = {"path": path, "type": kind, "size_bytes": 0}
        if depth <= MAX_DEPTH and len(self.entries) < MAX_ENTRIES:
            self.entries.append(entry)
        elif depth <= MAX_DEPTH:
            self.truncated = True
        size = self.add(child.path, f"{path}/", depth + 1) if kind == "directory" else _size(child)
        entry["size_bytes"] = size
        return size


def _kind(child: os.DirEntry[str]) -> str:
    if child.is_symlink():
        return "link"
    if child.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if child.is_file(follow_symlinks=False) else "other"


def _size(child: os.DirEntry[str]) -> int:
    try:
        return child.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
