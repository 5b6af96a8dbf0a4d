"""What the ingress says where no service does, in the API's error shape.

Traefik has no text of its own to set: it fetches a page. This one is served by the supervisor itself, which lives as
long as the stack does, so that there is an answer also when every service is gone.
"""

import asyncio
import json
from http import HTTPStatus

from deploy.local.ports import HOST

_HEAD_BYTES = 2 << 20
"""More than Traefik takes of a client, whose headers it passes on."""
_LINGER_SECONDS = 5.0
_RETRY_SECONDS = 2
_TEXTS = {
    HTTPStatus.BAD_GATEWAY: "The service did not answer; whether a change was made is not known: look, or repeat it",
    HTTPStatus.SERVICE_UNAVAILABLE: "The service is unavailable, try again shortly",
    HTTPStatus.GATEWAY_TIMEOUT: "The service did not answer in time; a change may have been made: look, or repeat it",
}


async def serve_error_pages(port: int) -> asyncio.Server:
    """Answer `/502` and `/504` with these statuses, everything else with 503. Close the server to end it."""
    return await asyncio.start_server(_serve, HOST, port, limit=_HEAD_BYTES)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_answer(head.split(b" ", 2)[1].decode("latin-1")))
            writer.write_eof()
            # a body that nobody reads would reset the connection, and the answer with it
            while await reader.read(1 << 16):
                pass
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):  # gone, or slower than Traefik is
        pass
    finally:
        writer.close()


def _answer(path: str) -> bytes:
    status = next((status for status in _TEXTS if path == f"/{status.value}"), HTTPStatus.SERVICE_UNAVAILABLE)
    body = json.dumps({"detail": _TEXTS[status]}).encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"Retry-After: {_RETRY_SECONDS}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
