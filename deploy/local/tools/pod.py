"""Where things are for a program that runs in a simulated pod: below $GPUDEV_ROOT, at $GPUDEV_POD_IP."""

import os
from pathlib import Path

SSH_PORT, JUPYTER_PORT = 2222, 8888


class Pod:
    """The pod that this process runs in."""

    def __init__(self) -> None:
        self.root = Path(os.environ["GPUDEV_ROOT"])
        self.address = os.environ["GPUDEV_POD_IP"]
        self.home = self.inside("/home/dev")
        self.etc = self.inside("/gpudev/etc")
        self.run = self.inside("/gpudev/run")
        self.first_keys = self.inside("/gpudev/access/authorized_keys")
        self.commands_home = self.inside("/gpudev/access/home")
        self.authorized_keys = self.etc / "authorized_keys"
        self.public_host_key = self.etc / "host_key.pub"
        self.last_message = self.inside("/dev/termination-log")

    def inside(self, path: str) -> Path:
        """Where a path of the pod lies on this machine; `..` never leads out."""
        return inside(self.root, path)

    def mounted(self, path: str) -> str:
        """What a path means to a user: below the pod's mounts what it means in the pod, any other this machine's."""
        top = path.split("/")[1:2] if path.startswith("/") else []
        return str(self.inside(path)) if top and top[0] and (self.root / top[0]).exists() else path


def inside(root: Path, path: str) -> Path:
    """Where a path of the pod with this root lies on this machine; `..` never leads out."""
    return root / os.path.normpath(f"/{path}").lstrip("/")


def shell() -> str:
    """The shell of sessions."""
    return next((path for path in ("/bin/bash", "/usr/bin/bash") if os.access(path, os.X_OK)), "/bin/sh")


def user_environment(pod: Pod) -> dict[str, str]:
    """What a user's session has beside the container's environment, over it."""
    return {
        **os.environ,
        "HOME": str(pod.home),
        "USER": "dev",
        "LOGNAME": "dev",
        "SHELL": shell(),
        "PWD": str(pod.home),
    }


def write_private(path: Path, data: bytes) -> None:
    """Replace the file at once; only we may read it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_bytes(data)
    temporary.replace(path)
