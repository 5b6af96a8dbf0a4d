"""The garbage collector: dependents go when their owners are gone."""

import asyncio
from collections import defaultdict

from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry.deletion import DeleteOptions
from deploy.local.cluster.registry.registry import Registry, Target
from deploy.local.cluster.registry.resources import BY_KIND, RESOURCES
from deploy.local.cluster.registry.store import Change, Key


class GarbageCollector:
    """Keeps an index from owners to dependents and acts after every change that concerns one of them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._dependents: dict[str, set[Key]] = defaultdict(set)
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        for resource in RESOURCES:
            for record in registry.store.records(resource):
                self._index(record.key, record.value)

    def on_change(self, change: Change) -> None:
        """Subscribes to the store."""
        if change.type != "DELETED":
            if "ownerReferences" in change.record.value["metadata"] or "finalizers" in change.record.value["metadata"]:
                self._index(change.record.key, change.record.value)
            return
        for key in self._dependents.pop(change.record.value["metadata"]["uid"], ()):
            self._queue.put_nowait(key)
        for owner in change.record.value["metadata"].get("ownerReferences") or []:
            self._let_owner_go_on(owner, change.record.key)

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            self._attend(await self._queue.get())

    def _index(self, key: Key, value: Object) -> None:
        for owner in value["metadata"].get("ownerReferences") or []:
            self._dependents[owner["uid"]].add(key)
        self._queue.put_nowait(key)

    def _let_owner_go_on(self, owner: Object, dependent: Key) -> None:
        """An owner in foreground deletion waits for its dependents."""
        self._dependents[owner["uid"]].discard(dependent)
        resource = BY_KIND.get((owner["apiVersion"], owner["kind"]))
        if resource is not None:
            self._queue.put_nowait((resource.plural, dependent[1] if resource.namespaced else "", owner["name"]))

    def _attend(self, key: Key) -> None:
        record = self._registry.store.get(*key)
        if record is None:
            return
        self._finalize(key, record.value)
        metadata = record.value["metadata"]
        owners = metadata.get("ownerReferences") or []
        if not owners or "deletionTimestamp" in metadata:
            return
        present = [owner for owner in owners if self._exists(owner, key[1])]
        if not present:
            options = DeleteOptions(uid=metadata["uid"], propagation_policy="Background")
            self._registry.delete(_target(key), options)
        elif len(present) < len(owners):
            self._registry.modify(_target(key), lambda value: value["metadata"].update(ownerReferences=present))

    def _exists(self, owner: Object, namespace: str) -> bool:
        resource = BY_KIND.get((owner["apiVersion"], owner["kind"]))
        if resource is None:
            return True  # a kind that is not served: nothing is known, so nothing is deleted
        found = self._registry.store.get(resource.plural, namespace if resource.namespaced else "", owner["name"])
        return found is not None and found.value["metadata"]["uid"] == owner["uid"]

    def _finalize(self, key: Key, value: Object) -> None:
        metadata = value["metadata"]
        if "deletionTimestamp" not in metadata:
            return
        finalizers = metadata.get("finalizers", [])
        if "orphan" in finalizers:
            self._orphan(metadata["uid"])
            self._drop_finalizer(key, "orphan")
        elif "foregroundDeletion" in finalizers and not self._delete_dependents(metadata["uid"]):
            self._drop_finalizer(key, "foregroundDeletion")

    def _orphan(self, uid: str) -> None:
        def let_go(value: Object) -> None:
            rest = [owner for owner in value["metadata"].get("ownerReferences", []) if owner["uid"] != uid]
            value["metadata"]["ownerReferences"] = rest
            if not rest:
                del value["metadata"]["ownerReferences"]

        for key in self._dependents.pop(uid, ()):
            self._registry.modify(_target(key), let_go)

    def _delete_dependents(self, uid: str) -> bool:
        """Deletes what is left; True while some dependents are still there."""
        for key in sorted(self._dependents.get(uid, ())):
            record = self._registry.store.get(*key)
            if record is not None and "deletionTimestamp" not in record.value["metadata"]:
                self._registry.delete(_target(key), DeleteOptions(propagation_policy="Foreground"))
        return any(self._registry.store.get(*key) is not None for key in self._dependents.get(uid, ()))

    def _drop_finalizer(self, key: Key, name: str) -> None:
        def drop(value: Object) -> None:
            rest = [entry for entry in value["metadata"].get("finalizers", []) if entry != name]
            value["metadata"]["finalizers"] = rest
            if not rest:
                del value["metadata"]["finalizers"]

        self._registry.modify(_target(key), drop)


def _target(key: Key) -> Target:
    return Target(RESOURCES[key[0]], key[1], key[2])
