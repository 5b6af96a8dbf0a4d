"""Which files of a folder a run sends."""

import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from gpudev.cli.folder import entries_of, write_archive
from gpudev.cli.running import shown_size

TREE = (
    ".gitignore",
    "a.py",
    "a.log",
    "kept.log",
    "build/x",
    "sub/.gitignore",
    "sub/build/x",
    "sub/only",
    "sub/a.log",
    "deep/data/raw/x",
    "deep/data/keep/x",
    "name with space/ä",
)
RULES = {
    ".gitignore": "# comment\n*.log\n!kept.log\n/build/\ndeep/data/*\n!deep/data/keep/\n",
    "sub/.gitignore": "only\n!a.log\n",
}


def grow(folder: Path) -> None:
    for name in TREE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(RULES.get(name, name))


def sent(folder: Path) -> set[str]:
    return {entry.path for entry in entries_of(folder) if entry.is_file}


@pytest.mark.skipif(shutil.which("git") is None, reason="compares with git")
def test_git_would_take_the_same(tmp_path: Path) -> None:
    grow(tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "core.quotePath=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    told = subprocess.check_output([*git, "ls-files", "--others", "--exclude-standard", "-z"], text=True)
    assert sent(tmp_path) == set(told.split("\0")) - {""}
    told = subprocess.check_output(
        [*git[:2], str(tmp_path / "deep"), *git[3:], "ls-files", "--others", "--exclude-standard", "-z"], text=True
    )
    assert sent(tmp_path / "deep") == set(told.split("\0")) - {""}, "rules of the folders above hold, too"


def test_our_own_ignore_file_goes_before_gits(tmp_path: Path) -> None:
    grow(tmp_path)
    (tmp_path / ".gpudevignore").write_text("!a.log\nname*\n")
    assert {"a.log", "kept.log", "a.py"} < sent(tmp_path)
    assert "name with space/ä" not in sent(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref")
    assert ".git/HEAD" not in sent(tmp_path)
    (tmp_path / ".gpudevignore").write_text("!.git/\n")
    assert ".git/HEAD" in sent(tmp_path)


def test_an_archive_has_modes_times_and_links_and_its_last_files_last(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("x")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("run.sh")
    (tmp_path / "closed").mkdir(mode=0o500)
    packed = BytesIO()
    write_archive(packed, tmp_path, entries_of(tmp_path), {"s/command": "true", "s/go": ""})
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert list(members) == ["closed", "link", "run.sh", "s/command", "s/go"]
    assert (members["run.sh"].mode, members["closed"].mode) == (0o755, 0o700)
    assert members["run.sh"].mtime == int((tmp_path / "run.sh").stat().st_mtime)
    assert members["link"].linkname == "run.sh"


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (999, "999 B"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_501, "1 MB"),
        (999_499_999, "999 MB"),
        (999_999_999, "1.0 GB"),
        (2_000_000_000_000, "2,000.0 GB"),
    ],
)
def test_a_size_that_rounds_up_to_the_next_unit_is_told_in_it(size: int, shown: str) -> None:
    assert shown_size(size) == shown
