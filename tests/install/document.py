"""docs/operate/install.md as a script: its shell blocks, run one after the other in one shell, as an operator does."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "docs/operate/install.md"
_ELSEWHERE = ("docker ", "helm repo ", "deploy/images/tools/build.sh")
"""What needs a registry, or a chart out of a repository: done by whoever prepares the test's surroundings."""


class Document:
    """The commands of one page."""

    def __init__(self, page: Path) -> None:
        self.sections = [_section(text) for text in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]]

    def blocks(self, title: str) -> list[str]:
        """The shell blocks of the section whose title ends like this, less what is done elsewhere."""
        (blocks,) = (blocks for name, blocks in self.sections if name.endswith(title))
        return [block for block in blocks if not any(command in block for command in _ELSEWHERE)]


def _section(text: str) -> tuple[str, list[str]]:
    title, _, body = text.partition("\n")
    # in a list a block is indented
    return title, re.findall(r"^ *```sh\n(.*?)^ *```", body, re.DOTALL | re.MULTILINE)


def variables(block: str) -> dict[str, str]:
    """What a block of exports sets."""
    return dict(re.findall(r"^export (\w+)=(\S*)", block, re.MULTILINE))


class Shell:
    """Runs blocks as one shell would: what one sets, the next one has.

    Args:
        directory: Where it works: the root of a checkout.
        environment: Of the operator.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory, self.environment = directory, dict(environment)

    def run(self, block: str, seconds: float = 400) -> str:
        """Its output; fails with all that it printed."""
        with tempfile.NamedTemporaryFile() as kept:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"{block}\nenv -0 >{kept.name}\n"],
                cwd=self.directory,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout[-6000:]}"
            lines = Path(kept.name).read_text().split("\0")
        self.environment = dict(line.split("=", 1) for line in lines if "=" in line)
        return done.stdout
