"""What is in the services' images, and what is not."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

from shared.routes import SERVICES
from tests.install.conftest import BUILD, ROOT

pytestmark = pytest.mark.timeout(600)
ARCHIVE = ROOT / "deploy/images/services/archive.py"
PACKAGES = "usr/local/lib/python3.11/dist-packages"
MOST_MB = {"auth": 250, "disks": 250, "jobs": 350, "capacity": 350}
USER = 65532
IMPORT_ALL = """
import importlib, os, pkgutil, ssl, sys
import services
names = [module.name for module in pkgutil.walk_packages(services.__path__, "services.")]
for name in ["shared.database.migrate", *names]:
    if ".migrations" not in name:
        importlib.import_module(name)
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 100
assert os.getuid() == 65532 and not os.environ.get("HOME")
print(sys.version_info[:2], len(names))
"""


def files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            yield Path(folder, name)


def in_image(root: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """A program of the image, as its user, with nothing of this machine but a kernel."""
    command = ["/usr/sbin/chroot", f"--userspec={USER}:{USER}", "--groups=", str(root), *argv]
    environment = {"PATH": "/usr/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_finds_all_that_it_needs_in_its_image(images: Path, service: str) -> None:
    ran = in_image(images / service, "/usr/bin/python", "-c", IMPORT_ALL)

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("(3, 11)")


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_has_no_service_but_its_own(images: Path, service: str) -> None:
    found = {path.name for path in (images / service / PACKAGES / "services").iterdir() if path.is_dir()}

    assert found - {"__pycache__"} == {service}


@pytest.mark.parametrize("service", SERVICES)
def test_python_is_the_only_program_but_what_it_runs(images: Path, service: str) -> None:
    root = images / service
    programs = {
        str(path.relative_to(root))
        for path in files(root)
        if not path.is_symlink() and path.stat().st_mode & 0o111 and ".so" not in path.name
    }

    assert programs == {"usr/bin/python3.11", "usr/bin/gpudev-admin"}
    for shell in ("bin/sh", "usr/bin/sh", "bin/bash", "usr/bin/bash", "bin/busybox", "usr/bin/dpkg", "usr/bin/apt-get"):
        assert not os.path.lexists(root / shell)


@pytest.mark.parametrize("service", SERVICES)
def test_operators_have_their_command_for_the_image_s_service(images: Path, service: str) -> None:
    helped = in_image(images / service, "gpudev-admin", "--help")
    unset = in_image(images / service, "gpudev-admin", service, "--help")

    assert (helped.returncode, f"{{{service}}}" in helped.stdout) == (0, True), helped.stderr
    assert (unset.returncode, "GPUDEV_DATABASE_URL is not set" in unset.stderr) == (2, True), unset.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_belongs_to_the_user_or_may_be_written_by_them(images: Path, service: str) -> None:
    root = images / service
    for path in (root, *root.rglob("*")):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (0, 0), path
        if stat.S_ISLNK(status.st_mode) or path == root / "tmp":
            continue
        assert not status.st_mode & 0o6022, path


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_is_small(images: Path, service: str) -> None:
    used = subprocess.run(["du", "-s", "-BM", images / service], capture_output=True, text=True, check=True).stdout

    assert int(used.partition("M")[0]) <= MOST_MB[service]


@pytest.mark.parametrize("service", SERVICES)
def test_the_bill_of_materials_names_every_package(images: Path, service: str) -> None:
    root = images / service
    document = json.loads((root / "sbom.cdx.json").read_text())
    told = {component["purl"].partition("?")[0] for component in document["components"]}
    installed = [Parser().parsestr(path.read_text()) for path in (root / PACKAGES).glob("*.dist-info/METADATA")]

    assert document["metadata"]["component"]["name"] == f"gpudev-{service}"
    assert len(installed) > 20
    for package in installed:
        name = package["Name"].lower().replace("_", "-").replace(".", "-")
        assert any(purl.startswith(f"pkg:pypi/{name}@") for purl in told), name
    for package in ("libc6", "libssl3", "python3.11-minimal", "ca-certificates"):
        assert any(purl.startswith(f"pkg:deb/debian/{package}@") for purl in told), package


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_has_the_versions_that_are_tested(service: str) -> None:
    def versions(path: Path) -> set[str]:
        return {line.split()[0] for line in path.read_text().splitlines() if "==" in line}

    locked = versions(ROOT / f"deploy/images/services/{service}.txt")

    assert len(locked) > 20
    assert locked <= versions(ROOT / "requirements.lock")


def test_the_same_checkout_makes_the_same_image(images: Path, tmp_path: Path) -> None:
    # with a cache of its own, so that nothing is taken from the first build
    environment = {**os.environ, "GPUDEV_SERVICES_CACHE": str(tmp_path / "cache"), "TZ": "Asia/Tokyo"}
    subprocess.run([BUILD, tmp_path / "again", "auth"], env=environment, check=True, umask=0o077)

    digests = [digest(root, tmp_path) for root in (images / "auth", tmp_path / "again" / "auth")]

    assert digests[0] == digests[1], differences(images / "auth", tmp_path / "again/auth")


def test_an_image_runs_as_a_user_without_rights(images: Path, tmp_path: Path) -> None:
    digest(images / "disks", tmp_path)
    with tarfile.open(tmp_path / "image.tar") as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = json.load(archive.extractfile(manifest["Config"]))  # type: ignore[arg-type]

    assert config["config"]["User"] == f"{USER}:{USER}"
    dockerfile = (ROOT / "deploy/images/services/Dockerfile").read_text()
    assert f"USER {config['config']['User']}" in dockerfile
    assert f"ENV {' '.join(config['config']['Env'])}" in dockerfile


def digest(root: Path, folder: Path) -> str:
    command = [sys.executable, ARCHIVE, root, "gpudev-test:1", folder / "image.tar"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def differences(one: Path, other: Path) -> list[str]:
    """Which files are not the same, for whoever has to find out why."""

    def contents(root: Path) -> dict[str, str]:
        return {
            str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files(root) if p.is_file()
        }

    first, second = contents(one), contents(other)
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))[:20]
