"""The registry: what the verbs mean for every kind of object.

Everything here is synchronous and runs in the event loop, so each verb is atomic. Nothing is durable before
`Store.durable()` returns.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from deploy.local.cluster.machinery import errors, patches
from deploy.local.cluster.machinery.objects import Object, copy, now, timestamp, without_nulls
from deploy.local.cluster.registry import defaults, names, shapes, strategies, validation
from deploy.local.cluster.registry.deletion import DeleteOptions, begin_deletion, check_preconditions
from deploy.local.cluster.registry.resources import Resource
from deploy.local.cluster.registry.services import allocate
from deploy.local.cluster.registry.store import Record, Store

_KEPT_METADATA = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName")
_GENERATE_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Target:
    """Which object, or which part of it, a request is about."""

    resource: Resource
    namespace: str
    name: str
    subresource: str = ""


class Registry:
    """Create, read, update and delete with the API server's semantics."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get(self, target: Target) -> Record:
        """The current record; raises NotFound."""
        record = self.store.get(target.resource.plural, target.namespace, target.name)
        if record is None:
            raise errors.not_found(target.resource.plural, target.name)
        return record

    def create(self, resource: Resource, namespace: str, body: Any, *, dry_run: bool = False) -> Record:
        """Stores a new object; raises AlreadyExists, BadRequest, Forbidden, Invalid or NotFound (its namespace)."""
        value = self._decode(resource, namespace, body)
        if resource.namespaced:
            self._require_namespace(resource, namespace, value)
        self._complete_metadata(resource, namespace, value)
        strategies.prepare_create(resource.plural, value)
        defaults.apply(resource.plural, value)
        self._check(resource, value, validation.validate(resource.plural, value))
        name = value["metadata"]["name"]
        if self.store.get(resource.plural, namespace, name) is not None:
            raise errors.already_exists(resource.plural, name)
        if resource.plural == "services":
            allocate(value, None, self.store.values("services"))
        return self._put(resource, value, dry_run=dry_run)

    def update(self, target: Target, body: Any, *, dry_run: bool = False) -> Record:
        """Replaces an object or its status; raises BadRequest, Conflict, Invalid or NotFound."""
        existing = self.get(target)
        value = self._decode(target.resource, target.namespace, body)
        if value["metadata"].get("name") != target.name:
            given = value["metadata"].get("name", "")
            raise errors.bad_request(
                f"the name of the object ({given}) does not match the name on the URL ({target.name})"
            )
        return self._replace(target, existing, value, dry_run=dry_run)

    def patch(self, target: Target, content_type: str, patch: Any, *, dry_run: bool = False) -> Record:
        """Applies a patch of the given content type to the current object."""
        existing = self.get(target)
        patched = patches.apply(content_type, existing.value, patch)
        value = self._decode(target.resource, target.namespace, patched)
        if value["metadata"].get("name") != target.name:
            raise self._invalid(target, "metadata.name", "field is immutable")
        return self._replace(target, existing, value, dry_run=dry_run)

    def modify(self, target: Target, change: Callable[[Object], None]) -> Record | None:
        """For the parts of the simulator: changes an object in place, without validation; None when it is gone."""
        existing = self.store.get(target.resource.plural, target.namespace, target.name)
        if existing is None:
            return None
        value = copy(existing.value)
        change(value)
        return self._store_change(target, existing, value, dry_run=False)

    def delete(self, target: Target, options: DeleteOptions) -> tuple[Record, bool]:
        """Deletes or begins to delete; the flag says whether the object is gone. Raises Conflict or NotFound."""
        existing = self.get(target)
        check_preconditions(target.resource.plural, existing.value, options)
        strategies.check_delete(target.resource.plural, existing.value)
        value = copy(existing.value)
        gone = begin_deletion(target.resource.plural, value, options)
        if options.dry_run:
            return existing, gone
        if gone:
            return self.store.remove(target.resource.plural, target.namespace, target.name), True
        if value == existing.value:
            return existing, False
        return self.store.put(target.resource.plural, value), False

    def _decode(self, resource: Resource, namespace: str, body: Any) -> Object:
        if not isinstance(body, dict):
            raise errors.bad_request("the body of the request must be a JSON object")
        value: Object = without_nulls(body)
        kind, version = value.get("kind", resource.kind), value.get("apiVersion", resource.api_version)
        if version != resource.api_version:
            expected = resource.api_version
            raise errors.bad_request(
                f"the API version in the data ({version}) does not match the expected API version ({expected})"
            )
        if kind != resource.kind:
            raise errors.bad_request(
                f'{kind} in version "{version}" cannot be handled as a {resource.kind}: kind does not match'
            )
        value.setdefault("metadata", {})
        shapes.check(resource.plural, resource.kind, value)
        result = {"kind": kind, "apiVersion": version, **value}
        metadata = result["metadata"]
        if metadata.get("namespace", namespace) != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        return result

    def _require_namespace(self, resource: Resource, namespace: str, value: Object) -> None:
        record = self.store.get("namespaces", "", namespace)
        if record is None:
            raise errors.not_found("namespaces", namespace)
        if record.value["status"]["phase"] == "Terminating":
            detail = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = errors.Cause(
                "metadata.namespace", "NamespaceTerminating", f"namespace {namespace} is being terminated"
            )
            raise errors.forbidden(resource.plural, value["metadata"].get("name", ""), detail, [cause])

    def _complete_metadata(self, resource: Resource, namespace: str, value: Object) -> None:
        metadata = value["metadata"]
        if metadata.get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        prefix = metadata.get("generateName")
        if prefix and not metadata.get("name"):
            for _ in range(_GENERATE_ATTEMPTS):
                metadata["name"] = names.generate(prefix)
                if self.store.get(resource.plural, namespace, metadata["name"]) is None:
                    break
        for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            metadata.pop(field, None)
        if resource.namespaced:
            metadata["namespace"] = namespace
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = timestamp(now())

    def _replace(self, target: Target, existing: Record, value: Object, *, dry_run: bool) -> Record:
        self._check_revision(target, existing.value, value["metadata"])
        old = existing.value
        for field in _KEPT_METADATA:
            _carry(value["metadata"], old["metadata"], field)
        if target.resource.namespaced:
            value["metadata"]["namespace"] = target.namespace
        value = strategies.prepare_update(target.resource.plural, target.subresource, value, old)
        defaults.apply(target.resource.plural, value)
        self._check(target.resource, value, validation.validate_update(target.resource.plural, value, old))
        if target.resource.plural == "services":
            allocate(value, old, self.store.values("services"))
        return self._store_change(target, existing, value, dry_run=dry_run)

    def _store_change(self, target: Target, existing: Record, value: Object, *, dry_run: bool) -> Record:
        value["metadata"]["resourceVersion"] = existing.value["metadata"]["resourceVersion"]
        if value == existing.value:
            return existing  # a write that changes nothing makes no new version, as on the API server
        metadata = value["metadata"]
        ended = "deletionTimestamp" in metadata and not metadata.get("deletionGracePeriodSeconds")
        finalizers = value["spec"].get("finalizers") if target.resource.plural == "namespaces" else []
        if ended and not metadata.get("finalizers") and not finalizers and not dry_run:
            self.store.put(target.resource.plural, value)
            return self.store.remove(*existing.key)
        return self._put(target.resource, value, dry_run=dry_run)

    def _check_revision(self, target: Target, old: Object, metadata: Object) -> None:
        given = metadata.get("resourceVersion", "")
        if given and given != old["metadata"]["resourceVersion"]:
            raise errors.conflict(target.resource.plural, target.name)
        uid = metadata.get("uid", "")
        if uid and uid != old["metadata"]["uid"]:
            detail = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
            raise errors.conflict(target.resource.plural, target.name, detail)

    def _put(self, resource: Resource, value: Object, *, dry_run: bool) -> Record:
        if dry_run:
            value["metadata"].pop("resourceVersion", None)
            key = (resource.plural, value["metadata"].get("namespace", ""), value["metadata"]["name"])
            return Record(key, self.store.revision, msgspec.json.encode(value), value)
        return self.store.put(resource.plural, value)

    @staticmethod
    def _check(resource: Resource, value: Object, causes: list[errors.Cause]) -> None:
        if causes:
            raise errors.invalid(resource.kind, value["metadata"].get("name", ""), causes)

    @staticmethod
    def _invalid(target: Target, path: str, detail: str) -> errors.StatusError:
        cause = errors.Cause(path, "FieldValueInvalid", f"Invalid value: {detail}")
        return errors.invalid(target.resource.kind, target.name, [cause])


def _carry(new: Object, old: Object, field: str) -> None:
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)
