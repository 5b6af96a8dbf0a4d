"""`Status` errors: one constructor per situation, with the code and reason that the API server gives."""

from dataclasses import dataclass, field
from typing import Any

from deploy.local.cluster.machinery.objects import Object


class StatusError(Exception):
    """An answer other than success; `status` is the body that the client gets."""

    def __init__(
        self, code: int, reason: str, message: str, details: Object | None = None, metadata: Object | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata or {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        if details:
            self.status["details"] = details


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of `details.causes`: what is wrong with one field."""

    field: str
    reason: str
    message: str


@dataclass(slots=True)
class Causes:
    """Collects what is wrong with an object while it is validated."""

    found: list[Cause] = field(default_factory=list)

    def required(self, path: str, detail: str = "") -> None:
        """The field must be given."""
        self._add(path, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))

    def invalid(self, path: str, value: Any, detail: str) -> None:
        """The field's value breaks a rule."""
        shown = f'"{value}"' if isinstance(value, str) else value
        self._add(path, "FieldValueInvalid", f"Invalid value: {shown}: {detail}")

    def unsupported(self, path: str, value: Any, supported: list[str]) -> None:
        """The field's value is none of the known ones."""
        names = ", ".join(f'"{name}"' for name in supported)
        self._add(path, "FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {names}')

    def forbidden(self, path: str, detail: str) -> None:
        """The field must not be given, or not be changed."""
        self._add(path, "FieldValueForbidden", f"Forbidden: {detail}")

    def duplicate(self, path: str, value: Any) -> None:
        """The value must be unique among its neighbours."""
        self._add(path, "FieldValueDuplicate", f'Duplicate value: "{value}"')

    def not_found(self, path: str, value: Any) -> None:
        """The value names something that is not there."""
        self._add(path, "FieldValueNotFound", f'Not found: "{value}"')

    def _add(self, path: str, reason: str, message: str) -> None:
        self.found.append(Cause(path, reason, message))


def not_found(resource: str, name: str) -> StatusError:
    """404: no such object."""
    return StatusError(404, "NotFound", f'{resource} "{name}" not found', {"name": name, "kind": resource})


def no_such_path() -> StatusError:
    """404: nothing is served at this path."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", {"causes": []})


def already_exists(resource: str, name: str) -> StatusError:
    """409: the name is taken."""
    return StatusError(409, "AlreadyExists", f'{resource} "{name}" already exists', {"name": name, "kind": resource})


def conflict(resource: str, name: str, detail: str = "") -> StatusError:
    """409: the object has changed since it was read, or a precondition does not hold."""
    text = detail or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {resource} "{name}": {text}'
    return StatusError(409, "Conflict", message, {"name": name, "kind": resource})


def invalid(kind: str, name: str, causes: list[Cause]) -> StatusError:
    """422: the object is well-formed but breaks rules."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    shown = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = {
        "name": name,
        "kind": kind,
        "causes": [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes],
    }
    return StatusError(422, "Invalid", f'{kind} "{name}" is invalid: {shown}', details)


def bad_request(message: str) -> StatusError:
    """400: the request cannot be understood."""
    return StatusError(400, "BadRequest", message)


def forbidden(resource: str, name: str, detail: str, causes: list[Cause] | None = None) -> StatusError:
    """403: understood and refused."""
    details: Object = {"name": name, "kind": resource}
    if causes:
        details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return StatusError(403, "Forbidden", f'{resource} "{name}" is forbidden: {detail}', details)


def unauthorized() -> StatusError:
    """401: no token, or not ours."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def method_not_allowed() -> StatusError:
    """405: the resource does not have this verb."""
    return StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def unsupported_media_type(supported: list[str]) -> StatusError:
    """415: the body's content type is not read here."""
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(supported)}"
    return StatusError(415, "UnsupportedMediaType", message)


def too_large(limit_bytes: int) -> StatusError:
    """413: the body is longer than the limit."""
    return StatusError(413, "RequestEntityTooLarge", f"limit is {limit_bytes}")


def expired(message: str, metadata: Object | None = None) -> StatusError:
    """410: the revision asked for is no longer kept."""
    return StatusError(410, "Expired", message, metadata=metadata)


def too_large_resource_version(asked: int, current: int) -> StatusError:
    """504: the revision asked for has not happened yet."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return StatusError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


def not_running(container: str) -> StatusError:
    """500: what the kubelet says about an exec into a container that does not run."""
    message = f'unable to upgrade connection: container not found ("{container}")'
    return StatusError(500, "InternalError", message)


def internal() -> StatusError:
    """500: a fault of the simulator; its log tells."""
    return StatusError(500, "InternalError", "Internal error occurred")
