"""One document and one page for the API of all services; no request leaves the machine.

Each service tells its own OpenAPI document over NATS; whichever service is the front door merges them.
"""

import asyncio
import time
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import msgspec
import structlog
from litestar import Controller, MediaType, Request, Response, get
from litestar.di import NamedDependency

from shared.clock import Stopwatch
from shared.contracts.asyncapi import asyncapi_document
from shared.errors import NotFound, Unavailable
from shared.messaging import Broker, call_rpc
from shared.messaging.rpc import Empty
from shared.routes import CONTRACT, SERVICES
from shared.web.authentication import PUBLIC
from shared.web.errors import bad_request, error_responses
from shared.web.event_docs import events_page

log = structlog.get_logger(__name__)

API_VERSION = "1.0.0"
_REMEMBER_SECONDS = 10.0
# Found, not imported: the package's own code wants Django, which nothing here does.
_ASSETS = Path(
    str(
        distribution("drf-spectacular-sidecar").locate_file(
            "drf_spectacular_sidecar/static/drf_spectacular_sidecar/swagger-ui-dist"
        )
    )
)
_ASSET_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_PLACES = {endpoint: place for place, endpoint in enumerate(CONTRACT)}
_EVENTS = asyncapi_document()
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>GPU Dev API</title>
  <link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png">
  <link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/docs/assets/swagger-ui-bundle.js"></script>
  <script src="/docs/start.js"></script>
</body>
</html>
"""
# colours for every answer, and the schemas of all endpoints open below them, made the page slow to answer a click
_START = """window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  displayRequestDuration: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  syntaxHighlight: { activated: false },
  validatorUrl: null,
});
"""
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}


class OpenApiPart(msgspec.Struct, frozen=True):
    document: dict[str, Any]
    """One service's OpenAPI document."""


class ApiInfo(msgspec.Struct, frozen=True, kw_only=True):
    service: str = "GPU Dev API"
    version: str = API_VERSION
    docs: str = "/docs"
    health: str = "/health"
    auth: dict[str, str] = msgspec.field(
        default_factory=lambda: {
            "aws_login": "/v1/auth/aws-login",
            "description": "Use AWS credentials to obtain an API key",
        }
    )
    endpoints: dict[str, str] = msgspec.field(
        default_factory=lambda: {
            "jobs": "/v1/jobs",
            "disks": "/v1/disks",
            "gpu_availability": "/v1/gpu/availability",
            "cluster_status": "/v1/cluster/status",
        }
    )


def openapi_subject(service: str) -> str:
    """RPC subject of a service's OpenAPI document."""
    return f"gpudev.rpc.{service}.openapi"


def merge_documents(documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One document from the services' own, its operations in the order of the contract and ours after them.

    Schemas of one name must be equal in all, and two services may not answer one path.

    Raises:
        ValueError: They differ, or a path is there twice.
    """
    merged: dict[str, Any] = {"paths": {}, "components": {}}
    for service, document in documents.items():
        for key, value in document.items():
            if key not in {"paths", "components"}:
                merged.setdefault(key, value)
        for path, item in document["paths"].items():
            if path in merged["paths"]:
                raise ValueError(f"{path} is answered by two services, {service} is one")
            merged["paths"][path] = item
        for section, entries in document.get("components", {}).items():
            target = merged["components"].setdefault(section, {})
            for name, entry in entries.items():
                if target.setdefault(name, entry) != entry:
                    raise ValueError(f"components.{section}.{name} differs in {service}")
    merged["paths"] = _in_order(merged["paths"])
    return merged


def _in_order(paths: dict[str, Any]) -> dict[str, Any]:
    """As pages show it: a tag's operations follow the order of the paths, and within a path that of its methods."""

    def place(path: str, method: str) -> int:
        return _PLACES.get((method, path), len(_PLACES))

    ordered = {
        path: dict(sorted(item.items(), key=lambda entry: place(path, entry[0]))) for path, item in paths.items()
    }
    return dict(sorted(ordered.items(), key=lambda entry: place(entry[0], next(iter(entry[1])))))


class ApiDocument:
    """The merged document: asked for when it is wanted, remembered for some seconds, and while a service is away."""

    def __init__(self, broker: Broker, *, stopwatch: Stopwatch = time.monotonic) -> None:
        self._broker = broker
        self._stopwatch = stopwatch
        self._parts: dict[str, dict[str, Any]] = {}
        self._asked_at = -_REMEMBER_SECONDS

    async def get(self) -> dict[str, Any]:
        """The document of all services.

        Raises:
            Unavailable: A service has never answered yet.
        """
        if self._stopwatch() - self._asked_at >= _REMEMBER_SECONDS:
            await asyncio.gather(*(self._ask(service) for service in SERVICES))
            self._asked_at = self._stopwatch()
        missing = [service for service in SERVICES if service not in self._parts]
        if missing:
            self._asked_at = -_REMEMBER_SECONDS
            raise Unavailable(f"The API document lacks {', '.join(missing)}, try again shortly", retry_after_seconds=2)
        return merge_documents({service: self._parts[service] for service in SERVICES})

    async def _ask(self, service: str) -> None:
        try:
            part = await call_rpc(self._broker, openapi_subject(service), Empty(), OpenApiPart)
        except Unavailable as error:
            log.warning("openapi_part_missing", part_of=service, error=type(error).__name__)
            return
        self._parts[service] = part.document


class FrontDocsController(Controller):
    """`/`, `/docs` and `/openapi.json`."""

    opt = {PUBLIC: True}  # noqa: RUF012 - Litestar's class attribute
    tags = ["Health & Info"]  # noqa: RUF012 - Litestar's class attribute
    security = [{}]  # noqa: RUF012 - no key is asked for

    @get(
        "/",
        operation_id="api_info",
        summary="Get API information and available endpoints",
        responses=bad_request(),
    )
    async def info(self) -> ApiInfo:
        """What this API is and where its parts are."""
        return ApiInfo()

    @get(
        "/openapi.json",
        operation_id="openapi",
        summary="OpenAPI 3.1 document of the whole API",
        responses=error_responses(public=True),
    )
    async def openapi(self, api_document: NamedDependency[ApiDocument]) -> dict[str, Any]:
        """The merged document of all services."""
        return await api_document.get()

    @get("/docs", include_in_schema=False, media_type=MediaType.HTML)
    async def docs(self) -> Response[str]:
        """Swagger UI."""
        return Response(_PAGE, headers=_PAGE_HEADERS, media_type=MediaType.HTML)

    @get("/docs/events", include_in_schema=False, media_type=MediaType.HTML)
    async def events(self) -> Response[str]:
        """Every event, for people."""
        return Response(events_page(_EVENTS), headers=_PAGE_HEADERS, media_type=MediaType.HTML)

    @get("/docs/events.json", include_in_schema=False)
    async def events_document(self) -> Response[dict[str, Any]]:
        """Every event, as AsyncAPI 3."""
        return Response(_EVENTS, media_type=MediaType.JSON)

    @get("/docs/start.js", include_in_schema=False)
    async def start(self) -> Response[str]:
        """Starts Swagger UI; a file of its own, so that the page needs no inline script."""
        return Response(_START, headers=_PAGE_HEADERS, media_type="text/javascript")

    @get("/docs/assets/{name:str}", include_in_schema=False)
    async def asset(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """Swagger UI's own files, from its package."""
        name = request.path_params["name"]
        if name not in _ASSET_TYPES:
            raise NotFound("Asset")
        headers = {"Cache-Control": "public, max-age=86400", **_PAGE_HEADERS}
        return Response((_ASSETS / name).read_bytes(), media_type=_ASSET_TYPES[name], headers=headers)
