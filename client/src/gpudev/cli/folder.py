"""The folder that `gpudev run` sends: which files of it, and as one stream."""

import gzip
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from pathspec import GitIgnoreSpec

from gpudev.cli.ending import CommandError

IGNORE_FILES = (".gitignore", ".gpudevignore")
"""In any folder, for what is in it; the second goes before the first."""
_ALWAYS = (".git/", ".gpudev-run/")
"""Ignored, unless an ignore file says otherwise."""
_LEVEL = 1
"""Of compression: more would be slower than most lines."""


@dataclass(frozen=True)
class Entry:
    path: str
    """From the folder on, with `/`."""
    status: os.stat_result

    @property
    def is_file(self) -> bool:
        """Not a folder or a link."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def size(self) -> int:
        """What it weighs."""
        return self.status.st_size if self.is_file else 0


def entries_of(folder: Path) -> Iterator[Entry]:
    """Files, links and folders to send, each folder before what is in it.

    What git ignores stays here, by the rules of the repository that the folder is in; what is no file (sockets,
    devices) too.
    """
    yield from _below(folder, "", [_Rules(GitIgnoreSpec.from_lines(_ALWAYS)), *_rules_above(folder)])


@dataclass(frozen=True)
class _Rules:
    """Patterns of one folder's ignore files."""

    spec: GitIgnoreSpec
    above: str = ""
    """The path from there to the folder that is sent; of a folder above it."""
    below: str = ""
    """The path from the folder that is sent to there; of a folder in it."""

    def decide(self, path: str) -> bool | None:
        """Whether they ignore a path of the folder that is sent; None: they say nothing of it."""
        return self.spec.check_file(self.above + path.removeprefix(self.below)).include


def _below(folder: Path, prefix: str, rules: list[_Rules]) -> Iterator[Entry]:
    spec = _read_spec(folder / prefix)
    rules = [*rules, _Rules(spec, below=prefix)] if spec else rules
    with os.scandir(folder / prefix) as found:
        children = sorted(found, key=lambda child: child.name)
    for child in children:
        path = prefix + child.name
        is_folder = child.is_dir(follow_symlinks=False)
        if _is_ignored(rules, f"{path}/" if is_folder else path):
            continue
        status = child.stat(follow_symlinks=False)
        if is_folder or stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            yield Entry(path, status)
        if is_folder:
            yield from _below(folder, f"{path}/", rules)


def _is_ignored(rules: list[_Rules], path: str) -> bool:
    """The deepest folder that says anything decides, as with git."""
    decisions = (one.decide(path) for one in reversed(rules))
    return next((decision for decision in decisions if decision is not None), False)


def _rules_above(folder: Path) -> list[_Rules]:
    """Of the folders between the repository's root and the one that is sent."""
    root = next((above for above in (folder, *folder.parents) if (above / ".git").exists()), folder)
    above = [one for one in folder.parents if one.is_relative_to(root)]
    found = ((one, _read_spec(one)) for one in reversed(above))
    return [_Rules(spec, above=f"{folder.relative_to(one).as_posix()}/") for one, spec in found if spec]


def _read_spec(folder: Path) -> GitIgnoreSpec | None:
    lines: list[str] = []
    for name in IGNORE_FILES:
        file = folder / name
        if file.is_file():
            lines += file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    try:
        return GitIgnoreSpec.from_lines(lines) if lines else None
    except ValueError as error:
        raise CommandError(f"{folder}: an ignore file cannot be read: {error}") from None


def write_archive(into: IO[bytes], folder: Path, entries: Iterator[Entry], last: Mapping[str, str]) -> None:
    """Write a compressed archive.

    Args:
        into: Takes it.
        folder: That the entries are of.
        entries: To send.
        last: Texts by path, behind all else and in this order.

    Raises:
        CommandError: A file cannot be read, or has become shorter meanwhile.
    """
    with (
        gzip.GzipFile(fileobj=into, mode="wb", compresslevel=_LEVEL, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        for entry in entries:
            _add(archive, folder, entry)
        for path, text in last.items():
            _add_text(archive, path, text)


def _add(archive: tarfile.TarFile, folder: Path, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.path)
    member.mode = stat.S_IMODE(entry.status.st_mode)
    member.mtime = int(entry.status.st_mtime)
    try:
        if stat.S_ISDIR(entry.status.st_mode):
            member.type = tarfile.DIRTYPE
            # who sends it must be able to fill it
            member.mode |= stat.S_IRWXU
            archive.addfile(member)
        elif stat.S_ISLNK(entry.status.st_mode):
            member.type = tarfile.SYMTYPE
            member.linkname = str((folder / entry.path).readlink())
            archive.addfile(member)
        else:
            with (folder / entry.path).open("rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                archive.addfile(member, file)
    except FileNotFoundError:
        return  # it has gone since it was listed
    except BrokenPipeError:
        raise  # who takes it is gone
    except OSError as error:
        why = error.strerror or "it has changed while it was sent"
        raise CommandError(
            f"{entry.path} cannot be sent: {why}", step="Ignore it in .gpudevignore, or try again."
        ) from error


def _add_text(archive: tarfile.TarFile, path: str, text: str) -> None:
    data = text.encode(errors="surrogateescape")
    member = tarfile.TarInfo(path)
    member.size = len(data)
    archive.addfile(member, BytesIO(data))
