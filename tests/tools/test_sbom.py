"""What the image says that it is made of, and whether that is what Debian has now."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(180)
BUNDLE = "gpudev-tools/jupyter.tar.gz"


@pytest.fixture(scope="module")
def components(tools: Path) -> dict[str, Any]:
    """By the beginning of their package URLs."""
    document = json.loads((tools / "sbom.cdx.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    return {str(one["purl"].partition("@")[0]): one for one in document["components"]}


def test_the_image_says_what_is_in_it(components: dict[str, Any], tools: Path, tmp_path: Path) -> None:
    told = {name.removeprefix("pkg:") for name in components}
    debian = ("dropbear", "openssh", "busybox-static", "musl-dev", "python3.11", "libc6", "libssl3")
    assert {f"deb/debian/{name}" for name in debian} | {"pypi/jupyterlab", "pypi/tornado"} <= told
    assert not list((tools / "gpudev-tools").glob("sbom*")), "no job needs a copy of it"

    server = subprocess.run([tools / "gpudev-tools/bin/dropbear", "-V"], capture_output=True, text=True, check=True)
    assert f"v{components['pkg:deb/debian/dropbear']['version'].partition('-')[0]}" in server.stdout + server.stderr
    subprocess.run(["tar", "-xzf", tools / BUNDLE, "-C", tmp_path, "lib"], check=True)
    libraries = (tmp_path / "lib/libcrypto.so.3").read_bytes()
    assert f"OpenSSL {components['pkg:deb/debian/libssl3']['version'].partition('-')[0]}".encode() in libraries


def test_what_debian_has_mended_is_mended_in_the_image(components: dict[str, Any]) -> None:
    for name in ("libssl3", "libexpat1", "python3.11-minimal", "busybox-static", "zlib1g"):
        known = subprocess.run(["apt-cache", "madison", name], capture_output=True, text=True, check=True).stdout
        newest = known.splitlines()[0].split("|")[1].strip()
        ours = components[f"pkg:deb/debian/{name}"]["version"]
        assert subprocess.run(["dpkg", "--compare-versions", ours, "ge", newest], check=False).returncode == 0, name
