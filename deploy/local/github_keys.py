"""Stand-in for GitHub's key pages: `<name>.keys` files of one folder over HTTP, `python -m deploy.local.github_keys`.

The demo users' private keys are made for the stack and lie beside their pages: no request leaves the machine.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.local.part import Part
from deploy.local.ports import HOST, accepts
from deploy.local.state import write_private

_NAME = re.compile(r"[A-Za-z0-9-]{1,39}")
_PAGE = re.compile(rf"/({_NAME.pattern})\.keys")


@dataclass(frozen=True, kw_only=True)
class KeyPages:
    """Where one stand-in lives."""

    directory: Path
    """Its `<name>.keys` files, and `<name>`, the private key, of those whom the stack made one."""
    port: int

    @property
    def url(self) -> str:
        """What stands for https://github.com."""
        return f"http://{HOST}:{self.port}"

    def part(self, log: Path) -> Part:
        """The server process."""
        where = ("--port", str(self.port), "--directory", str(self.directory))
        return Part(
            name="github",
            argv=(sys.executable, "-m", "deploy.local.github_keys", *where),
            log=log,
            ready=lambda: accepts(self.port),
            cwd=Path(__file__).parents[2],
            port=self.port,
        )


def make_key_pair(directory: Path, name: str) -> None:
    """Make `<name>`, a private key for ssh, and `<name>.keys`, unless they are there or GitHub has no such names."""
    if not _NAME.fullmatch(name) or (directory / f"{name}.keys").exists():
        return
    key = Ed25519PrivateKey.generate()
    no_password = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, no_password)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_private(directory / name, private)
    write_private(directory / f"{name}.keys", public + b"\n")


def _keys_of(directory: Path, name: str) -> bytes | None:
    """The page of a user; None when they have none. As on GitHub, a name's case does not matter."""
    pages = (page for page in directory.glob("*.keys") if page.stem.lower() == name.lower())
    try:
        return next((page.read_bytes() for page in pages), None)
    except OSError:
        return None


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, *arguments: object, directory: Path) -> None:
        self._directory = directory
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """A user's keys; 404 for whoever has no file."""
        page = _PAGE.fullmatch(self.path)
        body = _keys_of(self._directory, page[1]) if page else None
        self.send_response(HTTPStatus.NOT_FOUND if body is None else HTTPStatus.OK)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.github_keys", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    arguments = parser.parse_args()
    handler = partial(_Handler, directory=arguments.directory)
    ThreadingHTTPServer((HOST, arguments.port), handler).serve_forever()


if __name__ == "__main__":
    main()
