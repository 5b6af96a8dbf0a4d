"""The three kinds of patch as pure functions from an object to a new object."""

from typing import Any

import jsonpatch

from deploy.local.cluster.machinery.errors import StatusError, bad_request, unsupported_media_type
from deploy.local.cluster.machinery.objects import Object, copy
from deploy.local.cluster.machinery.strategic_merge import strategic_merge

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
SUPPORTED = [JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH]


def apply(content_type: str, original: Object, patch: Any) -> Object:
    """The patched object; `original` is left alone. Raises BadRequest, Invalid or UnsupportedMediaType."""
    if content_type not in SUPPORTED:
        raise unsupported_media_type(SUPPORTED)
    if content_type == JSON_PATCH:
        return json_patch(original, patch)
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}")
    if content_type == MERGE_PATCH:
        merged: Object = merge_patch(copy(original), patch)
        return merged
    return strategic_merge(copy(original), patch)


def json_patch(original: Object, operations: Any) -> Object:
    """RFC 6902: all operations in order, or none; what cannot be applied is Invalid (422), without a reason."""
    if not isinstance(operations, list) or not all(isinstance(item, dict) for item in operations):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    try:
        patched = jsonpatch.apply_patch(original, operations)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError):
        patched = None
    if not isinstance(patched, dict):
        raise StatusError(422, "Invalid", "the server rejected our request due to an error in our request")
    return patched


def merge_patch(original: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, objects merge, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = original if isinstance(original, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result
