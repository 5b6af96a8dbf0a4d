"""The table of rooms, on a checkout of a few lines."""

from pathlib import Path

import pytest

from tests.bench import rooms

SAME = "\n".join(f"same_{number} = {number}" for number in range(7))
FILES = {
    "services/__init__.py": "",
    "services/jobs/__init__.py": "",
    "services/jobs/app.py": "from services.jobs import api\n",
    "services/jobs/api.py": "import services.jobs.operations.submit\n\n\ndef handle():\n    return 1\n",
    "services/jobs/operations/submit.py": (
        "from services.jobs.domain.job import Job\nfrom shared.errors import NotFound\n\n"
        "def one():\n    pass\n\nasync def two():\n    a = 1  # fmt: skip\n    return a\n"
    ),
    "services/jobs/operations/cancel.py": "from services.jobs.operations.submit import one\n",
    "services/jobs/domain/job.py": f"# the same\n{SAME}\n",
    "shared/errors.py": f"import os\n{SAME}\nelse_ = 1\n",
    "deploy/.venv/left_out.py": SAME,
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_rooms_arrows_lengths_and_duplicates_are_counted(checkout: Path) -> None:
    report = rooms.read(checkout)
    jobs = report.services["jobs"]
    assert jobs.rooms["operations"] == rooms.Room(files=2, lines=10)
    assert jobs.arrows == {("api", "operations"), ("operations", "domain")}
    assert sorted(jobs.functions) == [2, 2, 3]
    assert report.fmt_skips.total() == report.fmt_skips["jobs"] == 1
    assert report.folders["services"].files == 7
    assert (report.runs, report.duplicated_lines) == (1, 7)


def test_two_checkouts_stand_side_by_side(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rooms.main([str(checkout), str(checkout)])
    lines = capsys.readouterr().out.splitlines()
    assert next(line.split() for line in lines if line.startswith("jobs: rooms")) == ["jobs:", "rooms", "3", "3"]
    assert any(line.split() == ["jobs/operations", "2", "/", "10", "2", "/", "10"] for line in lines)
