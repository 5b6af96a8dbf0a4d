"""JSON patch, RFC 6902."""

from typing import Any

from deploy.local.cluster.machinery.errors import StatusError, bad_request
from deploy.local.cluster.machinery.objects import Object, copy


def json_patch(document: Object, operations: Any) -> Object:
    """Applies the operations in order to `document`, which is changed; raises BadRequest or Invalid (422)."""
    if not isinstance(operations, list) or not all(isinstance(item, dict) for item in operations):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    root: Object = {"": document}
    for operation in operations:
        _apply(root, operation)
    result: Object = root[""]
    return result


def _apply(root: Object, operation: Object) -> None:
    path = _path(operation.get("path"))
    match operation.get("op"):
        case "add":
            _add(root, path, _value(operation))
        case "remove":
            _remove(root, path)
        case "replace":
            _replace(root, path, _value(operation))
        case "move":
            _add(root, path, _remove(root, _path(operation.get("from"))))
        case "copy":
            value = _get(root, _path(operation.get("from")))
            _add(root, path, copy({"value": value})["value"])
        case "test":
            if _get(root, path) != operation.get("value"):
                raise _failed(f"testing value {operation.get('path')} failed: test failed")
        case other:
            raise bad_request(f"Unexpected kind: {other}")


def _value(operation: Object) -> Any:
    if "value" not in operation:
        raise bad_request("a JSON patch operation lacks its value")
    return operation["value"]


def _path(pointer: Any) -> list[str]:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise bad_request(f"invalid JSON pointer: {pointer!r}")
    return ["", *(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])]


def _get(container: Any, path: list[str]) -> Any:
    for part in path:
        container = _child(container, part)
    return container


def _child(container: Any, part: str) -> Any:
    if isinstance(container, dict) and part in container:
        return container[part]
    if isinstance(container, list):
        return container[_index(container, part)]
    raise _failed(f'the path element "{part}" does not exist')


def _index(container: list[Any], part: str) -> int:
    if not part.isdigit() or int(part) >= len(container):
        raise _failed(f"Unable to access invalid index: {part}")
    return int(part)


def _add(root: Object, path: list[str], value: Any) -> None:
    container, last = _get(root, path[:-1]), path[-1]
    if isinstance(container, dict):
        container[last] = value
    elif isinstance(container, list):
        at = len(container) if last in {"-", str(len(container))} else _index(container, last)
        container.insert(at, value)
    else:
        raise _failed(f'the parent of "{last}" is no container')


def _remove(root: Object, path: list[str]) -> Any:
    container, last = _get(root, path[:-1]), path[-1]
    value = _child(container, last)
    del container[int(last) if isinstance(container, list) else last]
    return value


def _replace(root: Object, path: list[str], value: Any) -> None:
    container, last = _get(root, path[:-1]), path[-1]
    _child(container, last)
    container[int(last) if isinstance(container, list) else last] = value


def _failed(detail: str) -> StatusError:
    return StatusError(422, "Invalid", f"the server rejected our request due to an error in our request: {detail}")
