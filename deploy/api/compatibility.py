"""Which changes of the events' document break those who read events already: pure."""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
_ADDED_FREELY = frozenset({"description", "title", "default", "properties", "required", "enum"})


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """What a program written to the old document cannot read in the new one, or one written to the new in the old.

    Events may be read by a program of either age: a stream keeps them for a week, and replicas are replaced one by one.
    """
    return [*_of_channels(old, new), *_of_schemas(old["components"]["schemas"], new["components"]["schemas"])]


def _of_channels(old: Schema, new: Schema) -> Iterator[str]:
    for name, channel in old["channels"].items():
        found = new["channels"].get(name)
        if found is None:
            yield f"{name} is gone"
        elif found["address"] != channel["address"]:
            yield f"{name} has another subject"
        elif new["components"]["messages"][name]["payload"] != old["components"]["messages"][name]["payload"]:
            yield f"{name} has another payload"


def _of_schemas(old: Schema, new: Schema) -> Iterator[str]:
    for name, schema in old.items():
        if name not in new:
            yield f"{name} is gone"
        else:
            yield from _of_schema(name, schema, new[name])


def _of_schema(name: str, old: Schema, new: Schema) -> Iterator[str]:
    if _kind(old) != _kind(new):
        yield f"{name} is of another type"
    if set(old.get("enum", ())) != set(new.get("enum", ())):
        yield f"{name} has other values: services of the release before refuse those that they do not know"
    fields, found = old.get("properties", {}), new.get("properties", {})
    for field, schema in fields.items():
        if field not in found:
            yield f"{name}.{field} is gone"
        else:
            yield from _of_schema(f"{name}.{field}", schema, found[field])
    required, still = set(old.get("required", ())), set(new.get("required", ()))
    yield from (f"{name}.{field} may be missing" for field in sorted(required - still) if field in found)
    yield from (f"{name}.{field} is required, and what is stored lacks it" for field in sorted(still - required))


def _kind(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in _ADDED_FREELY}
