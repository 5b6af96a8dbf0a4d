"""Serves the console's files, whichever service is the front door."""

from pathlib import Path
from typing import Any

import msgspec
from litestar import Controller, Request, Response, get

from shared.errors import NotFound
from shared.web.authentication import PUBLIC
from shared.web.conditional import digest, is_known

_ASSETS = Path(__file__).parent / "assets"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    # nothing but our own files, and no text that becomes markup or script: a key is in this page's hands
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "clipboard-write=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # asked about at each load, so that no page is made of the files of two releases for long
    "Cache-Control": "no-cache",
}


class _File(msgspec.Struct, frozen=True):
    body: bytes
    media_type: str
    tag: str


def _read() -> dict[str, _File]:
    files = {}
    for path in _ASSETS.iterdir():
        if path.suffix in _TYPES:
            body = path.read_bytes()
            files[path.name] = _File(body, _TYPES[path.suffix], f'"{digest(body)}"')
    return files


_FILES = _read()


class ConsolePageController(Controller):
    """`/console`: no key is asked for, since nothing but the API's answers is anybody's."""

    opt = {PUBLIC: True}  # noqa: RUF012 - Litestar's class attribute

    @get("/console", include_in_schema=False)
    async def page(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """The page."""
        return _answer(request, _FILES["index.html"])

    @get("/console/assets/{name:str}", include_in_schema=False)
    async def asset(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """One of its files."""
        name = request.path_params["name"]
        if name not in _FILES:
            raise NotFound("Asset")
        return _answer(request, _FILES[name])


def _answer(request: Request[Any, Any, Any], file: _File) -> Response[bytes]:
    headers = {**_HEADERS, "ETag": file.tag}
    if is_known(request.headers.get("if-none-match"), file.tag):
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    return Response(file.body, headers=headers, media_type=file.media_type)
