"""The OpenAPI document of a service: Litestar's, with what it does not know of our routes."""

from typing import Any

from litestar import Litestar
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, Contact, License, SecurityScheme, Server, Tag
from litestar.routes import HTTPRoute

from shared.routes import ServiceName, service_of
from shared.web.docs import API_VERSION
from shared.web.preferences import MAX_WAIT_SECONDS, PREFER_WAIT

_TAGS = {
    "Authentication": "Exchange AWS credentials for an API key.",
    "Health & Info": "State of the services, and this documentation.",
    "Job Management": "Jobs, from submission to end.",
    "Cluster Information": "Free GPUs, and how busy the cluster is.",
    "Disk Operations": "Persistent disks and their snapshots.",
    "API Key Management": "Your own API keys.",
    "Events": "What happens, as it happens.",
    "Audit": "Who changed what, for operators.",
    "Orphans": "What is left over in the cluster and in AWS, for operators.",
}
"""In the order of the contract."""
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": f"`wait=N`: hold the answer until the outcome is known, {MAX_WAIT_SECONDS} s at most (RFC 7240).",
    "schema": {"type": "string"},
    "example": "wait=2",
}
# without an example: /docs would fill it in, and so refuse the second request that is tried there
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A request repeated with the same key within 24 h gets the first answer and has no second effect. "
    "A new one for each request, such as a UUID.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_MISMATCH = "422"
"""Answered by the routes that honour an Idempotency-Key, and by no other."""


def openapi_config() -> OpenAPIConfig:
    """What Litestar's document is made with."""
    return OpenAPIConfig(
        title="GPU Dev API",
        version=API_VERSION,
        description="Time-boxed GPU jobs on a shared cluster. Log in with AWS credentials, then send the API key "
        "as a bearer token.",
        contact=Contact(name="The operators of this GPU Dev"),
        license=License(name="Apache License 2.0", identifier="Apache-2.0"),
        servers=[Server(url="/")],
        components=Components(
            security_schemes={"BearerAuth": SecurityScheme(type="http", scheme="bearer", description="API key")}
        ),
        security=[{"BearerAuth": []}],
        tags=[Tag(name, description) for name, description in _TAGS.items()],
        use_handler_docstrings=True,
        path="/internal/schema",
        render_plugins=(),
    )


def own_document(app: Litestar, service: ServiceName) -> dict[str, Any]:
    """The part of the API document that is this service's: the front door's pages count as the front door's."""
    document: dict[str, Any] = _without_choices_of_one(app.openapi_schema.to_schema())
    document["paths"] = {path: item for path, item in document["paths"].items() if service_of(path) == service}
    waiting = _waiting_operations(app)
    for item in document["paths"].values():
        for operation in item.values():
            if operation.get("security") == [{}]:
                operation["security"] = []  # Litestar takes an empty list for the document's own
            headers = [_PREFER] if operation["operationId"] in waiting else []
            headers += [_IDEMPOTENCY_KEY] if _MISMATCH in operation["responses"] else []
            if headers:
                operation["parameters"] = [*operation.get("parameters", ()), *headers]
    return document


def _waiting_operations(app: Litestar) -> set[str]:
    """Ids of the operations that honour `Prefer: wait`."""
    handlers = [handler for route in app.routes if isinstance(route, HTTPRoute) for handler in route.route_handlers]
    return {str(handler.operation_id) for handler in handlers if handler.opt.get(PREFER_WAIT)}


def _without_choices_of_one(schema: Any) -> Any:
    """Litestar writes a type that may be unset as a `oneOf` of one: the one itself."""
    if isinstance(schema, list):
        return [_without_choices_of_one(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _without_choices_of_one(value) for name, value in schema.items()}
    if isinstance(plain.get("oneOf"), list) and len(plain["oneOf"]) == 1:
        return {**plain.pop("oneOf")[0], **plain}
    return plain
