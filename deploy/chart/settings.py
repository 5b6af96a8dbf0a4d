"""The services' settings as a chart's values: their JSON Schema, and which of them are secret."""

import enum
import types
import typing
from typing import Any

import msgspec

from services.auth.settings import AuthSettings
from services.capacity.settings import CapacitySettings
from services.disks.settings import DisksSettings
from services.jobs.settings import JobsSettings
from shared.field_docs import field_docs
from shared.routes import ServiceName
from shared.settings import CommonSettings

SETTINGS: dict[ServiceName, type[CommonSettings]] = {
    "auth": AuthSettings,
    "jobs": JobsSettings,
    "disks": DisksSettings,
    "capacity": CapacitySettings,
}
SECRETS = frozenset({"database_url", "nats_url", "secret_keys", "internal_token", "key_hash_key"})
"""They come out of the service's Secret, and are no values."""
NEEDED_SECRETS = SECRETS
"""Secrets that a service is not started without, although the code may have a default."""
ELSEWHERE = {"namespace": "namespaces.jobs", "http_port": "ports.http", "metrics_port": "ports.metrics"}
"""Settings that more than the service depends on, and the value that says them."""

Schema = dict[str, Any]


def names(service: ServiceName) -> list[str]:
    """Settings of a service that are values."""
    fields = msgspec.structs.fields(SETTINGS[service])
    return [field.name for field in fields if field.name not in SECRETS and field.name not in ELSEWHERE]


def secrets(service: ServiceName) -> dict[str, bool]:
    """Secret settings of a service; True: it starts without."""
    fields = msgspec.structs.fields(SETTINGS[service])
    return {field.name: field.name not in NEEDED_SECRETS for field in fields if field.name in SECRETS}


def default(name: str) -> Any:
    """Of a setting that every service has."""
    return next(field.default for field in msgspec.structs.fields(CommonSettings) if field.name == name)


def of_jobs() -> list[str]:
    """Settings in which capacity has to know what jobs is set to."""
    common = {field.name for field in msgspec.structs.fields(CommonSettings)}
    jobs = set(names("jobs")) - common
    return [name for name in names("capacity") if name in jobs]


def required(service: ServiceName) -> list[str]:
    """Values without which a service does not start."""
    fields = {field.name: field.required for field in msgspec.structs.fields(SETTINGS[service])}
    return [name for name in names(service) if fields[name]]


def service_schema(service: ServiceName) -> Schema:
    """Of `services.<service>.settings`."""
    return _object({name: setting_schema(SETTINGS[service], name) for name in names(service)})


def common_schema() -> Schema:
    """Of `settings`: what every service has."""
    common = {field.name for field in msgspec.structs.fields(CommonSettings)}
    return _object({name: setting_schema(CommonSettings, name) for name in names("auth") if name in common})


def _object(properties: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def setting_schema(model: type[CommonSettings], name: str) -> Schema:
    """Of one setting. Null, and the empty text, mean its default, as with variables."""
    field = next(field for field in msgspec.structs.fields(model) if field.name == name)
    schema = _form(field.type)
    if not field.required and field.default not in (None, msgspec.NODEFAULT):
        schema["default"] = field.default
    return {"description": field_docs(model)[name], **schema}


def _form(annotation: Any) -> Schema:
    bare, constraints = _taken_apart(annotation)
    if bare is str:
        return {"type": ["string", "null"]}
    if typing.get_origin(bare) is typing.Literal:
        return {"enum": [*typing.get_args(bare), "", None]}
    if issubclass(bare, enum.Enum):
        return {"enum": [*(one.value for one in bare), "", None]}
    # `type` of a union: Helm names the value that is wrong, and not one of several branches
    kind = {int: "integer", float: "number", bool: "boolean"}[bare]
    return {"type": [kind, "null"], **constraints}


def _taken_apart(annotation: Any) -> tuple[Any, Schema]:
    """The type without None and Annotated, and the limits that were said."""
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return _taken_apart(next(one for one in typing.get_args(annotation) if one is not type(None)))
    if typing.get_origin(annotation) is not typing.Annotated:
        return annotation, {}
    bare, *metas = typing.get_args(annotation)
    limits = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
    said = {
        limits[key]: getattr(meta, key)
        for meta in metas
        if isinstance(meta, msgspec.Meta)
        for key in limits
        if getattr(meta, key) is not None
    }
    return bare, said
