"""The services' images, built once for all tests here, or those that GPUDEV_IMAGES names."""

import os
import subprocess
from pathlib import Path

import pytest

from shared.routes import SERVICES

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
