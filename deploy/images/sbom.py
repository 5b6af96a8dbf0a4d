"""What an image is made of, as CycloneDX: python3 sbom.py IMAGE RESOLVED PACKAGES.

RESOLVED has a line for each file that was taken from Debian, its name and checksum; PACKAGES is the wheels' folder. The
same content gives the same document. Standard library only: it runs where the image is built.
"""
# ruff: noqa: INP001

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import quote, unquote

_BINARY = re.compile(r"(?P<name>[^_]+)_(?P<version>[^_]+)_(?P<arch>[^_]+)\.deb")
_SOURCE = re.compile(r"(?P<name>[^_]+)_(?P<version>[^_]+)\.dsc")


def main(name: str, resolved: Path, packages: Path) -> None:
    """Print the document."""
    found = [*_of_debian(resolved.read_text()), *_wheels(packages)]
    image = {"type": "container", "name": name}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": image},
        "components": sorted(found, key=lambda component: component["purl"]),
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


def _of_debian(resolved: str) -> Iterator[dict[str, str]]:
    for line in resolved.splitlines():
        name = unquote(line.split()[0])
        found = _BINARY.fullmatch(name) or _SOURCE.fullmatch(name)
        if found is not None:
            arch = found.groupdict().get("arch", "source")
            yield _component("deb/debian", found["name"], found["version"], f"?arch={arch}&distro=debian-12")


def _wheels(packages: Path) -> Iterator[dict[str, str]]:
    for wheel in distributions(path=[str(packages)]):
        yield _component("pypi", wheel.metadata["Name"].lower().replace("_", "-"), wheel.version)


def _component(kind: str, name: str, version: str, qualifiers: str = "") -> dict[str, str]:
    purl = f"pkg:{kind}/{quote(name)}@{quote(version)}{qualifiers}"
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
