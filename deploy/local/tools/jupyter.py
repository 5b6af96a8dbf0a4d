"""JupyterLab in the pod, on or off; what is on is written down, so that it comes again with the container."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from deploy.local import proc
from deploy.local.tools.pod import JUPYTER_PORT, Pod, shell, user_environment, write_private

_START_SECONDS = 25.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.1
# As in the image's jupyter.c: the user's own settings hold for what is not said here, which is where the server is,
# whom it lets in, and how long it lives. As arguments, since theirs are applied before a file of ours is read.
_SAID = (
    f"--ServerApp.port={JUPYTER_PORT}",
    "--ServerApp.port_retries=0",
    "--ServerApp.sock=",
    "--ServerApp.base_url=/",
    "--ServerApp.default_url=/lab",
    "--LabApp.default_url=/lab",
    "--LabApp.dev_mode=False",
    "--ServerApp.open_browser=False",
    "--ServerApp.certfile=",
    "--ServerApp.keyfile=",
    "--ServerApp.client_ca=",
    "--ServerApp.password=",
    "--ServerApp.password_required=False",
    "--ServerApp.allow_password_change=False",
    "--PasswordIdentityProvider.hashed_password=",
    "--PasswordIdentityProvider.password_required=False",
    "--PasswordIdentityProvider.allow_password_change=False",
    "--ServerApp.identity_provider_class=jupyter_server.auth.identity.PasswordIdentityProvider",
    "--ServerApp.authorizer_class=jupyter_server.auth.authorizer.AllowAllAuthorizer",
    "--ServerApp.allow_root=True",
    "--ServerApp.allow_remote_access=True",
    "--ServerApp.shutdown_no_activity_timeout=0",
)
_LATER = "Another request came while JupyterLab started"


class StartError(Exception):
    """JupyterLab does not start; the text says why, in one line."""


class Jupyter:
    """The pod's JupyterLab. Calls at the same time wait for each other; who starts it makes way for a later one."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._settings = pod.etc / "jupyter.json"
        self._wish = pod.run / "jupyter.wish"
        self._pid = pod.run / "jupyter.pid"
        self._log = pod.run / "jupyter.log"

    def start(self, token: str, wish: int = 0) -> None:
        """Have it run with this token and answer. Raises StartError, after which it is off.

        Args:
            token: That opens it.
            wish: Rises with each wish of the job's owner; one that arrives after a later one is void. 0: not said.
        """
        self._say(token, wish)
        with self._alone():
            self._see_that_wanted(token)
            if self._runs() and self._answers(token):
                return
            self._end()
            write_private(self._settings, json.dumps(self._configuration(token)).encode())
            try:
                self._await(self._launch(), token)
            except StartError:
                self._forget()
                raise

    def stop(self, wish: int = 0) -> None:
        """End it and forget its token; `wish` as in `start`."""
        self._say("", wish)
        with self._alone():
            self._see_that_wanted("")
            self._forget()

    def resume(self) -> "subprocess.Popen[bytes] | None":
        """Start it if it was on, and wait for nothing; None when it was off."""
        with self._alone():
            return self._launch() if self._settings.exists() else None

    def _say(self, token: str, wish: int) -> None:
        """What is wanted, before its turn, so that a start makes way."""
        with self._locked("jupyter.wish.lock"):
            last, _ = self._last_wish()
            if 0 < wish < last:
                raise StartError(_LATER)
            write_private(self._wish, f"{max(wish, last)} {token}".encode())

    def _last_wish(self) -> tuple[int, str]:
        number, _, token = self._wish.read_text().partition(" ") if self._wish.exists() else ("0", "", "")
        return int(number), token

    def _see_that_wanted(self, token: str) -> None:
        if self._last_wish()[1] != token:
            raise StartError(_LATER)

    def _configuration(self, token: str) -> dict[str, object]:
        return {
            "ServerApp": {
                "token": token,
                "jpserver_extensions": {"jupyter_lsp": False},  # it runs npm to find what is not there
                "terminado_settings": {"shell_command": [shell()]},
            },
            "IdentityProvider": {"token": token},
            "PasswordIdentityProvider": {"token": token},
            # nothing is fetched from the network
            "LabApp": {
                "extension_manager": "readonly",
                "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
                "news_url": None,
            },
        }

    def _launch(self) -> "subprocess.Popen[bytes]":
        folders = (f"--ServerApp.{name}={self._pod.home}" for name in ("root_dir", "preferred_dir"))
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [*_program(), f"--config={self._settings}", *_SAID, f"--ServerApp.ip={self._pod.address}", *folders],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._pod.home,
                env={**user_environment(self._pod), "JUPYTER_RUNTIME_DIR": str(self._pod.run / "jupyter")},
                start_new_session=True,
            )
        self._pid.write_text(f"{process.pid} {proc.start_time(process.pid)}")
        return process

    def _await(self, process: "subprocess.Popen[bytes]", token: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers(token):
            self._see_that_wanted(token)
            if process.poll() is not None:
                raise StartError(f"JupyterLab ended with exit code {process.returncode}: {self._last_line()}")
            if time.monotonic() > deadline:
                raise StartError(f"JupyterLab does not answer within {_START_SECONDS:.0f} s: {self._last_line()}")
            time.sleep(_POLL_SECONDS)

    def _answers(self, token: str) -> bool:
        request = urllib.request.Request(
            f"http://{self._pod.address}:{JUPYTER_PORT}/api/status", headers={"Authorization": f"token {token}"}
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5):
                return True
        except (OSError, ValueError):
            return False

    def _runs(self) -> bool:
        pid, _, began = self._recorded()
        return bool(pid) and proc.start_time(int(pid)) == began

    def _recorded(self) -> tuple[str, str, str]:
        try:
            return self._pid.read_text().partition(" ")
        except OSError:
            return "", "", ""

    def _forget(self) -> None:
        self._settings.unlink(missing_ok=True)
        self._end()

    def _end(self) -> None:
        if not self._runs():
            return
        pid = int(self._recorded()[0])
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
            deadline = time.monotonic() + _STOP_SECONDS
            while self._runs() and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        self._pid.unlink(missing_ok=True)

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        return self._locked("jupyter.lock")

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self._pod.run / name).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _program() -> list[str]:
    """The image's own JupyterLab, which comes first on the path, else ours."""
    found = shutil.which("jupyter-lab")
    if found and Path(found).parent != Path(sys.executable).parent:
        return [found]
    return [sys.executable, "-I", str(Path(__file__).with_name("lab.py"))]
