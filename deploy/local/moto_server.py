"""AWS for the local stack: moto's STS, IAM and EC2 with signatures checked and a memory that outlives it.

Beyond moto's own server: every request must be signed by a known identity, expired sessions are refused,
`ClientToken` makes a repeated creation answer what the first one did, EBS is more like EBS (`moto_ebs`), and moto's
control pages are shut. After each call that changes something, and before it is answered, all of it is written to a
file, for all the calls that wait for it at once.

Not kept: AWS services other than these three, and a snapshot of another version of moto (one starts afresh).
"""

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

# Read when moto is imported: from the first call on, signatures and policies are checked.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "0"
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import run_wsgi_app

from deploy.local import moto_state
from deploy.local.disk_contents import DiskContents
from deploy.local.moto_ebs import teach_ebs
from deploy.local.ports import HOST

READY_PATH = "/ready"
SERVICES = frozenset({"ec2", "iam", "sts"})
_READS = ("Describe", "Get", "List")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class Cloud:
    """WSGI application: guards in front of moto, its state saved behind it. One request at a time."""

    def __init__(self, state: moto_state.MotoState) -> None:
        self._state = state
        self._moto = DomainDispatcherApplication(create_backend_app)
        # moto guards nothing against threads, and a snapshot must not see half a change.
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._changes = 0
        self._saved = 0

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if environ["PATH_INFO"] == READY_PATH:
            return _answer(start_response, "200 OK", b"ready\n")
        # Lets a caller of moto name the account they want to be in.
        environ.pop("HTTP_X_MOTO_ACCOUNT_ID", None)
        key_id, service = _credential(environ)
        if key_id is None:
            return _refuse(start_response, "MissingAuthenticationToken", "Request is missing Authentication Token")
        if service not in SERVICES:
            return _refuse(start_response, "AccessDenied", f"The local stack has no AWS service '{service}'")
        parameters = _parameters(environ)
        with self._lock:
            if self._state.has_expired(key_id):
                return _refuse(start_response, "ExpiredToken", "The security token included in the request is expired")
            answer = self._perform(environ, start_response, key_id, parameters)
            change = self._changes
        self._save(change)
        return answer

    def _save(self, change: int) -> None:
        """Return when this change is on disk; one writes for all that have been made meanwhile."""
        with self._saving:
            if self._saved >= change:
                return
            with self._lock:
                change, content = self._changes, self._state.dump()
            self._state.write(content)
            self._saved = change

    def _perform(
        self, environ: Environ, start_response: StartResponse, key_id: str, parameters: dict[str, str]
    ) -> Iterable[bytes]:
        action = parameters.get("Action", "")
        token = parameters.get("ClientToken")
        request = (key_id, action, token) if token else None
        if request is not None and (known := self._state.replay(request, parameters)) is not None:
            return _answer(start_response, *known)
        body, status, headers = run_wsgi_app(self._moto, environ, buffered=True)
        content = b"".join(body)
        if status.startswith("2") and not action.startswith(_READS):
            if request is not None:
                self._state.remember(request, parameters, (status, content))
            self._changes += 1
        start_response(status, list(headers))
        return [content]


def serve(port: int, directory: Path, accounts: tuple[str, ...], snapshot_seconds: float, disks: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    teach_ebs(snapshot_seconds=snapshot_seconds, contents=DiskContents(disks))
    state = moto_state.MotoState(directory)
    state.load()
    state.seed(accounts)
    server = make_server(HOST, port, Cloud(state), threaded=True, request_handler=MotoRequestHandler)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Nothing is lost by leaving at once: what was answered has been saved.
        signal.signal(number, lambda *_: sys.exit(0))
    server.serve_forever()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.moto_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True, help="folder of the snapshot and the credentials")
    parser.add_argument("--account", action="append", required=True, help="12 digits; the first is ours")
    parser.add_argument("--snapshot-seconds", type=float, default=1.0, help="how long a snapshot is pending")
    parser.add_argument("--disks", type=Path, required=True, help="folder of the volumes' files and the snapshots'")
    arguments = parser.parse_args()
    accounts = tuple(arguments.account)
    serve(arguments.port, arguments.state, accounts, arguments.snapshot_seconds, arguments.disks)


def _credential(environ: Environ) -> tuple[str | None, str]:
    """Access key id and service that the request is signed for; (None, "") when it is not signed."""
    with contextlib.suppress(IndexError, ValueError):
        scope = environ.get("HTTP_AUTHORIZATION", "").split("Credential=")[1].split(",")[0]
        key_id, _, _, service, _ = scope.split("/")
        # moto takes these for granted and would answer 500.
        if "Signature=" in environ["HTTP_AUTHORIZATION"] and "HTTP_X_AMZ_DATE" in environ:
            return key_id, service.lower()
    return None, ""


def _parameters(environ: Environ) -> dict[str, str]:
    """The form of the request, which stays readable for moto."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}


def _refuse(start_response: StartResponse, code: str, message: str) -> Iterable[bytes]:
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    return _answer(start_response, "403 Forbidden", f"<ErrorResponse>{error}</ErrorResponse>".encode())


def _answer(start_response: StartResponse, status: str, body: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    main()
