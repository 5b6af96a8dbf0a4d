"""Bodies must be JSON and say so; checked after the key, before the body is read."""

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from shared.errors import ErrorKind, GpuDevError


class NotJson(GpuDevError):
    """The request's Content-Type is not JSON (RFC 9110 section 15.5.16)."""

    kind = ErrorKind.NOT_JSON

    def __init__(self) -> None:
        super().__init__("The body must be JSON: send Content-Type: application/json")


class JsonOnlyMiddleware:
    """Refuses a body of another media type on handlers that read one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == ScopeType.HTTP and scope["method"] in {"POST", "PUT", "PATCH"}:
            headers = dict(scope["headers"])
            has_body = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
            if has_body and scope["route_handler"].parsed_data_field is not None and not _is_json(headers):
                raise NotJson
        await self._app(scope, receive, send)


def _is_json(headers: dict[bytes, bytes]) -> bool:
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return media_type == b"application/json" or (
        media_type.startswith(b"application/") and media_type.endswith(b"+json")
    )
