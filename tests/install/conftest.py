"""The services' images, built once for all tests here, or those that GPUDEV_IMAGES names; and GPU Dev on a cluster."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.routes import SERVICES
from tests.install.installation import Installation
from tests.install.surroundings import Surroundings

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "deploy/images/services/build.sh"


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the root directory of each service's image."""
    if given := os.environ.get("GPUDEV_IMAGES"):
        return Path(given)
    if os.geteuid() != 0:
        raise pytest.UsageError("These tests build images: run them as root")
    folder = tmp_path_factory.mktemp("images")
    subprocess.run([BUILD, folder, *SERVICES], check=True)
    return folder


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """Installed as the document says, on the cluster of .ci/install."""
    kubeconfig = os.environ.get("GPUDEV_KUBECONFIG")
    if not kubeconfig:
        raise pytest.UsageError("Set GPUDEV_KUBECONFIG to the cluster that .ci/install starts")
    folder = Path(tempfile.mkdtemp(prefix="gpudev-install-"))
    folder.chmod(0o711)
    surroundings = Surroundings(folder)
    try:
        surroundings.start()
        installed = Installation(surroundings, kubeconfig)
        installed.install()
        yield installed
    finally:
        surroundings.close()
        shutil.rmtree(folder, ignore_errors=True)
