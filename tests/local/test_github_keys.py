import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from deploy.local import part as parts
from deploy.local.github_keys import KeyPages, make_key_pair
from deploy.local.ports import free_ports


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyPages]:
    folder = tmp_path_factory.mktemp("github")
    pages = KeyPages(directory=folder / "keys", port=free_ports(1)[0])
    make_key_pair(pages.directory, "demo")
    part = pages.part(folder / "log")
    process: subprocess.Popen[bytes] = parts.spawn(part)
    parts.await_ready(process, part)
    yield pages
    parts.stop(process, part)


def get(pages: KeyPages, path: str) -> bytes:
    with urllib.request.urlopen(f"{pages.url}{path}", timeout=30) as answer:
        body: bytes = answer.read()
        return body


def test_the_demo_user_has_the_key_that_belongs_to_his_private_one(pages: KeyPages) -> None:
    private = load_ssh_private_key((pages.directory / "demo").read_bytes(), password=None)

    assert load_ssh_public_key(get(pages, "/demo.keys")) == private.public_key()
    assert stat.S_IMODE((pages.directory / "demo").stat().st_mode) == 0o600


def test_a_user_is_added_by_a_file(pages: KeyPages) -> None:
    Path(pages.directory, "bob.keys").write_text("ssh-ed25519 AAAA\n")

    assert get(pages, "/bob.keys") == b"ssh-ed25519 AAAA\n"


def test_a_name_is_found_whatever_its_case(pages: KeyPages) -> None:
    assert get(pages, "/DEMO.keys") == get(pages, "/demo.keys")


@pytest.mark.parametrize("path", ["/nobody.keys", "/demo", "/../demo.keys", "/%2e%2e/demo.keys", "/", "/a/demo.keys"])
def test_nothing_else_is_served(pages: KeyPages, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        get(pages, path)

    assert refusal.value.code == 404
    refusal.value.close()
