"""What is on EBS volumes and in their snapshots: folders, where the simulator's pods find the volumes."""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

_CLOCK_SECONDS = 1.0
"""More than a file system's times are apart from the clock."""


class DiskContents:
    """A folder for each volume and snapshot, by its id. One that is not there is empty.

    A snapshot holds what is on the volume at that moment. Like EBS's, it is stored as what has changed: a file that
    is as the volume's last snapshot has it is a link to that one's.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def copy(self, source: str, target: str, *, earlier: str | None = None, taken: datetime | None = None) -> None:
        """Have the files of a volume or snapshot in another; nothing is there before all is. Takes as long as it takes.

        Args:
            source: Whose files.
            target: Id of the new one.
            earlier: A snapshot that may share its files with the new one.
            taken: When `earlier` was; None: its files are those of `source`.
        """
        if not (self._folder / source).is_dir():
            return
        unfinished = self._folder / f".{target}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unchanged = _never if earlier is None else _unchanged_since(taken)
        _copy_folder(self._folder / source, unfinished, self._folder / (earlier or source), unchanged)
        unfinished.replace(self._folder / target)

    def delete(self, name: str) -> None:
        """Give the room back; may be repeated."""
        shutil.rmtree(self._folder / name, ignore_errors=True)


_Unchanged = Callable[[os.stat_result, os.stat_result], bool]


def _never(_: os.stat_result, __: os.stat_result) -> bool:
    return False


def _unchanged_since(taken: datetime | None) -> _Unchanged:
    """Whether a file is as a snapshot has it: the time of the last change of anything about it cannot be set back."""

    def unchanged(here: os.stat_result, there: os.stat_result) -> bool:
        same = (here.st_size, here.st_mtime_ns, here.st_mode) == (there.st_size, there.st_mtime_ns, there.st_mode)
        return same and (taken is None or here.st_ctime < taken.timestamp() - _CLOCK_SECONDS)

    return unchanged


def _copy_folder(source: Path, target: Path, earlier: Path, unchanged: _Unchanged) -> None:
    target.mkdir(mode=0o700)
    with os.scandir(source) as entries:
        for entry in entries:
            # a job may be at work there: what it has removed meanwhile is not in the copy
            with contextlib.suppress(FileNotFoundError):
                _copy_entry(Path(entry.path), target / entry.name, earlier / entry.name, unchanged)
    _copy_attributes(source, target)


def _copy_entry(source: Path, target: Path, earlier: Path, unchanged: _Unchanged) -> None:
    here = source.lstat()
    if stat.S_ISDIR(here.st_mode):
        _copy_folder(source, target, earlier, unchanged)
    elif stat.S_ISLNK(here.st_mode):
        target.symlink_to(source.readlink())
        _copy_attributes(source, target)
    elif stat.S_ISFIFO(here.st_mode):
        os.mkfifo(target)
        _copy_attributes(source, target)
    elif stat.S_ISREG(here.st_mode):
        with contextlib.suppress(OSError):
            if unchanged(here, earlier.lstat()):
                target.hardlink_to(earlier)
                return
        shutil.copyfile(source, target)
        _copy_attributes(source, target)


def _copy_attributes(source: Path, target: Path) -> None:
    owner = source.lstat()
    with contextlib.suppress(PermissionError):  # for root to give away
        os.chown(target, owner.st_uid, owner.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)
