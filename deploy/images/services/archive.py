"""An image without a container engine: the archive that `docker load`, `skopeo copy` and `ctr images import` take.

    python3 archive.py ROOT NAME:TAG OUT.tar    # prints the image's digest
    python3 archive.py --config                 # prints how the image runs, for other makers of images

The same root gives the same bytes. Standard library only: it runs where the image is built.
"""
# ruff: noqa: INP001

import hashlib
import io
import json
import platform
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO

CONFIG = {
    "User": "65532:65532",
    "Env": ["PATH=/usr/bin", "LANG=C.UTF-8", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"],
}
"""As the Dockerfile says it."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def main(root: Path, name: str, out: Path) -> None:
    """Write the archive."""
    with tempfile.TemporaryFile() as layer:
        _write_layer(root, layer)
        layer.seek(0)
        digest = f"sha256:{hashlib.file_digest(layer, 'sha256').hexdigest()}"
        config = _json(
            {
                "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
                "os": "linux",
                "config": CONFIG,
                "rootfs": {"type": "layers", "diff_ids": [digest]},
            }
        )
        identity = hashlib.sha256(config).hexdigest()
        manifest = _json([{"Config": f"{identity}.json", "RepoTags": [name], "Layers": ["layer.tar"]}])
        with tarfile.open(out, "w") as archive:
            _add(archive, f"{identity}.json", config)
            entry = tarfile.TarInfo("layer.tar")
            entry.size = layer.seek(0, io.SEEK_END)
            layer.seek(0)
            archive.addfile(entry, layer)
            _add(archive, "manifest.json", manifest)
    sys.stdout.write(f"sha256:{identity}\n")


def _write_layer(root: Path, out: IO[bytes]) -> None:
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as layer:
        for path in sorted(root.rglob("*")):
            layer.add(path, str(path.relative_to(root)), recursive=False, filter=_plain)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of who builds, and when."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    if sys.argv[1:] == ["--config"]:
        sys.stdout.write(json.dumps(CONFIG) + "\n")
    else:
        main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
