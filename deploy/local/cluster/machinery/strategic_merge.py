"""Strategic merge patch: lists of objects merge by a key that the API type names."""

from typing import Any

from deploy.local.cluster.machinery.errors import bad_request
from deploy.local.cluster.machinery.objects import Object

# From the patchMergeKey tags of the core/v1 types. A list that is absent here is atomic: the patch replaces it.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "ownerReferences": "uid",
    "conditions": "type",
    "addresses": "type",
    "podIPs": "ip",
    "secrets": "name",
}
_PRIMITIVE_MERGE = frozenset({"finalizers", "podCIDRs"})
_PORTS_KEYS = ("containerPort", "port")
_REPLACE = "$patch"


def strategic_merge(original: Object, patch: Object) -> Object:
    """Merges `patch` into `original`, which is changed; raises BadRequest for unknown directives."""
    directive = patch.get(_REPLACE)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _REPLACE}
    if directive == "delete":
        return {}
    if directive not in {None, "merge"}:
        raise bad_request(f"Unknown patch type: {directive}")
    for key, value in patch.items():
        if not key.startswith("$"):
            _merge_field(original, key, value)
    _delete_from_primitive_lists(original, patch)
    _retain_keys(original, patch)
    _order(original, patch)
    return original


def _merge_field(original: Object, key: str, value: Any) -> None:
    current = original.get(key)
    if value is None:
        original.pop(key, None)
    elif isinstance(value, dict):
        original[key] = strategic_merge(current if isinstance(current, dict) else {}, value)
    elif isinstance(value, list):
        original[key] = _merge_list(key, current if isinstance(current, list) else [], value)
    else:
        original[key] = value


def _merge_list(key: str, current: list[Any], patch: list[Any]) -> list[Any]:
    if key in _PRIMITIVE_MERGE:
        return current + [item for item in patch if item not in current]
    merge_key = _merge_key(key, current, patch)
    if merge_key is None:
        return patch
    if any(isinstance(item, dict) and item.get(_REPLACE) == "replace" for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and item.get(_REPLACE) == "replace")]
    return _merge_objects(merge_key, current, patch)


def _merge_key(key: str, current: list[Any], patch: list[Any]) -> str | None:
    if key != "ports":
        return _MERGE_KEYS.get(key)
    # containers and services both have `ports`, merged by different keys
    items = [item for item in (*patch, *current) if isinstance(item, dict)]
    return next((name for name in _PORTS_KEYS if any(name in item for item in items)), None)


def _merge_objects(merge_key: str, current: list[Any], patch: list[Any]) -> list[Any]:
    result = list(current)
    for item in patch:
        if not isinstance(item, dict) or merge_key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {merge_key}")
        at = next((i for i, old in enumerate(result) if old.get(merge_key) == item[merge_key]), None)
        if item.get(_REPLACE) == "delete":
            result = [old for old in result if old.get(merge_key) != item[merge_key]]
        elif at is None:
            result.append(strategic_merge({}, item))
        else:
            result[at] = strategic_merge(result[at], item)
    return result


def _delete_from_primitive_lists(original: Object, patch: Object) -> None:
    for key, values in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.split("/", 1)[1]
            original[field] = [item for item in original.get(field, []) if item not in values]


def _retain_keys(original: Object, patch: Object) -> None:
    keep = patch.get("$retainKeys")
    if keep is not None:
        for key in [key for key in original if key not in keep]:
            del original[key]


def _order(original: Object, patch: Object) -> None:
    for key, order in patch.items():
        field = key.removeprefix("$setElementOrder/")
        if field == key or not isinstance(original.get(field), list):
            continue
        merge_key = _merge_key(field, original[field], order)
        names = [item.get(merge_key) if isinstance(item, dict) else item for item in order]

        def rank(item: Any, names: list[Any] = names, merge_key: str | None = merge_key) -> int:
            name = item.get(merge_key) if isinstance(item, dict) else item
            return names.index(name) if name in names else len(names)

        original[field] = sorted(original[field], key=rank)
