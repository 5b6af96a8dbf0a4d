"""The namespace controller and the service account controller."""

import asyncio

from deploy.local.cluster.machinery import errors
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry.deletion import DeleteOptions
from deploy.local.cluster.registry.registry import Registry, Target
from deploy.local.cluster.registry.resources import RESOURCES
from deploy.local.cluster.registry.store import Change

_INITIAL = ("default", "kube-system", "kube-public", "kube-node-lease")


class NamespaceController:
    """Gives every namespace its default service account, and empties one that is being deleted."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._wake = asyncio.Event()

    def ensure_initial(self) -> None:
        """The namespaces that every cluster has; idempotent."""
        for name in _INITIAL:
            if self._registry.store.get("namespaces", "", name) is None:
                self._registry.create(RESOURCES["namespaces"], "", {"metadata": {"name": name}})
            self._ensure_account(name)

    def on_change(self, change: Change) -> None:
        """Subscribes to the store."""
        if change.resource == "namespaces" or change.type == "DELETED":
            self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            for value in list(self._registry.store.values("namespaces")):
                if "deletionTimestamp" in value["metadata"]:
                    self._empty(value)
                else:
                    self._ensure_account(value["metadata"]["name"])
            await self._wake.wait()
            self._wake.clear()

    def _ensure_account(self, namespace: str) -> None:
        if self._registry.store.get("serviceaccounts", namespace, "default") is None:
            body = {"metadata": {"name": "default", "namespace": namespace}}
            self._registry.create(RESOURCES["serviceaccounts"], namespace, body)

    def _empty(self, value: Object) -> None:
        name = value["metadata"]["name"]
        for resource in RESOURCES.values():
            for record in self._registry.store.records(resource.plural, name) if resource.namespaced else []:
                if "deletionTimestamp" not in record.value["metadata"]:
                    self._delete(Target(resource, name, record.key[2]))
        if any(r.namespaced and self._registry.store.records(r.plural, name) for r in RESOURCES.values()):
            return

        def finalize(namespace: Object) -> None:
            namespace["spec"]["finalizers"] = []

        self._registry.modify(Target(RESOURCES["namespaces"], "", name), finalize)

    def _delete(self, target: Target) -> None:
        try:
            self._registry.delete(target, DeleteOptions())
        except errors.StatusError as error:
            if error.reason != "NotFound":
                raise
