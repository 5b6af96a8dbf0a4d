"""What the pages for developers name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIFECYCLE = ROOT / "docs" / "lifecycle.md"
FILE = re.compile(r"`((?:services|shared|deploy|tests|docs)/[\w./-]+\.\w+)`")
ROOM_FILE = re.compile(r"`((?:\w+/)+\w+\.py)`")
"""From the root, or from the page's own folder."""
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "services/*/README.md", "deploy/**/README.md")
    for path in ROOT.glob(pattern)
    if "node_modules" not in path.parts
)


def named_in(page: Path) -> list[Path]:
    """Files by their path from the root, and what is linked, from the page's own folder."""
    text = page.read_text()
    links = [page.parent / link for link in LINK.findall(text) if "://" not in link]
    return [ROOT / name for name in FILE.findall(text)] + links


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_module_that_a_page_names_is_there(page: Path) -> None:
    named = ROOM_FILE.findall((ROOT / page).read_text())
    assert [name for name in named if not any((base / name).exists() for base in (ROOT, (ROOT / page).parent))] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    assert [str(path) for path in named_in(ROOT / page) if not path.exists()] == []


def test_the_lifecycle_names_a_file_for_each_step() -> None:
    rows = [line for line in LIFECYCLE.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    steps = [row for row in rows if not row.endswith("| where |")]
    assert len(steps) > 20
    assert [row for row in steps if not FILE.search(row)] == []


@pytest.mark.parametrize("page", ["README.md", "services/jobs/README.md"])
def test_the_lifecycle_is_linked(page: str) -> None:
    assert LIFECYCLE in [path.resolve() for path in named_in(ROOT / page)]
