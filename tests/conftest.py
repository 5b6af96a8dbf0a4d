"""Fixtures of every tier."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.support.servers", "tests.support.harness"]

# what a machine says of its own terminal would colour, or wrap, what programs print for a test
for variable in ("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "LINES"):
    os.environ.pop(variable, None)

# how long an example takes depends on what else the machine does
settings.register_profile("gpudev", deadline=None)
settings.load_profile("gpudev")

NO_BROWSER = "there is no Chromium"
"""Reason of tests that are skipped."""
_LONGEST_FIRST = ("e2e", "local", "integration")
"""Tiers whose files take a minute each: begun last, one would keep one worker busy while the others are idle."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tiers that take long first; the order within a tier stays random."""
    items.sort(key=lambda item: _rank(item.path.relative_to(Path(__file__).parent).parts))


def _rank(parts: Sequence[str]) -> int:
    return _LONGEST_FIRST.index(parts[0]) if parts[0] in _LONGEST_FIRST else len(_LONGEST_FIRST)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was not tested for want of a browser."""
    skipped = [one for one in terminalreporter.stats.get("skipped", ()) if NO_BROWSER in str(one.longrepr)]
    if skipped:
        terminalreporter.section("NOT TESTED: the console and /docs", red=True, bold=True)
        terminalreporter.line(f"{len(skipped)} tests want Chromium: install Debian's `chromium`, or name one in")
        terminalreporter.line("GPUDEV_CHROMIUM. CI has it.")
