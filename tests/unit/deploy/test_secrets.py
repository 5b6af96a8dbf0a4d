"""The secrets of an installation, as an operator makes them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.encryption import Cipher
from shared.routes import SERVICES

ROOT = Path(__file__).parents[3]
NEW = ("--database", "db.example.org:5433/gpudev?sslmode=verify-full", "--nats", "tls://a.nats:4222,tls://b.nats:4222")


def secrets(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy/secrets.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def make(folder: Path) -> Path:
    made = secrets("new", folder, *NEW)
    assert made.returncode == 0, made.stderr
    return folder


def variables(folder: Path) -> dict[str, dict[str, str]]:
    """Of each Secret in the file for kubectl."""
    manifests = [json.loads(text) for text in (folder / "gpudev.yaml").read_text().split("---\n") if text]
    assert {manifest["metadata"]["namespace"] for manifest in manifests} == {"gpudev-system"}
    return {manifest["metadata"]["name"]: manifest["stringData"] for manifest in manifests}


def values(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "values.json").read_text()))


def test_each_service_gets_a_role_a_user_and_keys_of_its_own(tmp_path: Path) -> None:
    found = variables(make(tmp_path / "secrets"))

    assert set(found) == {f"gpudev-{service}" for service in SERVICES}
    for service in SERVICES:
        of = found[f"gpudev-{service}"]
        assert re.fullmatch(
            rf"postgresql://gpudev_{service}:p[0-9a-f]{{40}}@db\.example\.org:5433/gpudev\?sslmode=verify-full",
            of["GPUDEV_DATABASE_URL"],
        )
        user = rf"tls://{service}:p[0-9a-f]{{40}}@"
        assert re.fullmatch(rf"{user}a\.nats:4222,{user}b\.nats:4222", of["GPUDEV_NATS_URL"])
        assert Cipher(of["GPUDEV_SECRET_KEYS"])
    assert "GPUDEV_KEY_HASH_KEY" in found["gpudev-auth"]
    assert "GPUDEV_KEY_HASH_KEY" not in found["gpudev-jobs"]
    for name in ("GPUDEV_DATABASE_URL", "GPUDEV_SECRET_KEYS"):
        assert len({of[name] for of in found.values()}) == len(SERVICES)


def test_passwords_are_the_same_wherever_they_are_told(tmp_path: Path) -> None:
    folder = make(tmp_path / "secrets")
    found = variables(folder)

    of_roles = dict(line.split("=") for line in (folder / "database.env").read_text().splitlines())
    nats = json.loads((folder / "nats.yaml").read_text().removeprefix("---\n"))["stringData"]["passwords.conf"]
    for service in SERVICES:
        assert of_roles[f"{service.upper()}_PASSWORD"] in found[f"gpudev-{service}"]["GPUDEV_DATABASE_URL"]
        (password,) = re.findall(rf'^{service.upper()}_PASSWORD: "(.+)"$', nats, re.MULTILINE)
        assert password in found[f"gpudev-{service}"]["GPUDEV_NATS_URL"]
    # each password that the accounts name is there
    named = re.findall(r"\$(\w+_PASSWORD)", (ROOT / "deploy/nats/accounts.conf").read_text())
    assert sorted(re.findall(r"^(\w+):", nats, re.MULTILINE)) == sorted(named)


def test_nobody_else_may_read_them(tmp_path: Path) -> None:
    folder = make(tmp_path / "secrets")

    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_they_are_made_once(tmp_path: Path) -> None:
    folder = make(tmp_path / "secrets")
    before = values(folder)

    again = secrets("new", folder, *NEW)

    assert again.returncode != 0
    assert "is there already" in again.stderr
    assert values(folder) == before


def test_what_was_encrypted_before_a_rotation_can_be_read_after_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "secrets")
    before = variables(folder)
    old = Cipher(before["gpudev-jobs"]["GPUDEV_SECRET_KEYS"])
    text = old.encrypt(b"words", row="one")

    assert secrets("rotate", folder, "encryption").returncode == 0

    after = variables(folder)
    keys = after["gpudev-jobs"]["GPUDEV_SECRET_KEYS"].split(",")
    assert keys[1:] == [before["gpudev-jobs"]["GPUDEV_SECRET_KEYS"]]
    assert Cipher(",".join(keys)).decrypt(text, row="one") == b"words"
    unchanged = ("GPUDEV_DATABASE_URL", "GPUDEV_NATS_URL", "GPUDEV_INTERNAL_TOKEN", "GPUDEV_KEY_HASH_KEY")
    assert all(after["gpudev-auth"][name] == before["gpudev-auth"][name] for name in unchanged)

    assert secrets("rotate", folder, "encryption", "--only-newest").returncode == 0
    assert variables(folder)["gpudev-jobs"]["GPUDEV_SECRET_KEYS"] == keys[0]


@pytest.mark.parametrize(
    ("kind", "changed"),
    [("database", "GPUDEV_DATABASE_URL"), ("nats", "GPUDEV_NATS_URL"), ("internal", "GPUDEV_INTERNAL_TOKEN")],
)
def test_a_rotation_changes_one_kind(tmp_path: Path, kind: str, changed: str) -> None:
    folder = make(tmp_path / "secrets")
    before = variables(folder)["gpudev-auth"]

    assert secrets("rotate", folder, kind).returncode == 0

    after = variables(folder)["gpudev-auth"]
    assert {name for name in after if after[name] != before[name]} == {changed}


def credentials(folder: Path) -> Path:
    """What the operator of NATS gave, of each service."""
    folder.mkdir()
    for service in SERVICES:
        (folder / f"{service}.creds").write_text(f"of {service}, from {folder.name}\n")
    return folder


def test_where_nats_knows_users_by_jwt_their_files_take_the_place_of_passwords(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    given = credentials(tmp_path / "first")

    assert secrets("new", folder, *NEW, "--nats-credentials", given).returncode == 0

    for service in SERVICES:
        of = variables(folder)[f"gpudev-{service}"]
        assert of["GPUDEV_NATS_URL"] == "tls://a.nats:4222,tls://b.nats:4222"
        assert of["nats.creds"] == f"of {service}, from first\n"
    assert not list(folder.rglob("*nats*"))

    unsaid = secrets("rotate", folder, "nats")
    assert (unsaid.returncode, "--nats-credentials" in unsaid.stderr) == (1, True)
    assert secrets("rotate", folder, "nats", "--nats-credentials", credentials(tmp_path / "second")).returncode == 0
    assert {of["nats.creds"].split()[-1] for of in variables(folder).values()} == {"second"}


def test_a_missing_file_of_credentials_is_named(tmp_path: Path) -> None:
    given = credentials(tmp_path / "given")
    (given / "jobs.creds").unlink()

    made = secrets("new", tmp_path / "secrets", *NEW, "--nats-credentials", given)

    assert (made.returncode, "jobs.creds" in made.stderr) == (1, True)
    assert not (tmp_path / "secrets").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--database", "postgresql://me:secret@db/gpudev"),
        ("--database", "db"),
        ("--nats", "nats"),
        ("--nats", "nats://me:secret@n:1"),
    ],
)
def test_an_address_that_cannot_be_is_refused(tmp_path: Path, name: str, value: str) -> None:
    given = dict(zip(NEW[::2], NEW[1::2], strict=True)) | {name: value}

    made = secrets("new", tmp_path / "secrets", *(word for pair in given.items() for word in pair))

    assert made.returncode != 0
    assert name in made.stderr
    assert "secret@" not in made.stderr
    assert not (tmp_path / "secrets").exists()
