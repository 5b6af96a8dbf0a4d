"""Containers in every kind of root, for root and for another user."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.github_keys import make_key_pair
from tests.tools.container import Container

BUILD = Path(__file__).parents[2] / "deploy/images/tools/build.sh"
Make = Callable[..., Container]


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tools image's root directory."""
    if os.geteuid() != 0:
        raise pytest.UsageError("These tests make containers: run them as root")
    root = tmp_path_factory.mktemp("tools") / "root"
    subprocess.run([BUILD, root], check=True)
    return root


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key; `<name>.keys` beside it is the public one."""
    make_key_pair(tmp_path, "alice")
    return tmp_path / "alice"


def public(key: Path) -> str:
    return key.with_suffix(".keys").read_text()


@pytest.fixture
def make(tmp_path: Path, tools: Path, key: Path) -> Iterator[Make]:
    """Makes containers in which `key` has been installed."""
    made: list[Container] = []

    def make_one(kind: str = "debian", *, user_id: int = 0) -> Container:
        folder = tmp_path / f"container-{len(made)}"
        folder.mkdir()
        container = Container(folder, tools, kind, user_id=user_id)
        made.append(container)
        container.install(public(key))
        return container

    tmp_path.chmod(0o755)
    yield make_one
    for container in made:
        container.close()
