"""The persistent volume controller, as far as volumes and claims that name each other need one: it binds them."""

import asyncio

from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry.registry import Registry, Target
from deploy.local.cluster.registry.resources import RESOURCES
from deploy.local.cluster.registry.store import Change

_KINDS = ("persistentvolumes", "persistentvolumeclaims")


class VolumeBinder:
    """Woken by changes of volumes and claims."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._wake = asyncio.Event()

    def on_change(self, change: Change) -> None:
        """Subscribes to the store."""
        if change.resource in _KINDS:
            self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            for claim in list(self._registry.store.values("persistentvolumeclaims")):
                self._bind(claim)
            for volume in list(self._registry.store.values("persistentvolumes")):
                self._release(volume)
            await self._wake.wait()
            self._wake.clear()

    def _bind(self, claim: Object) -> None:
        meta = claim["metadata"]
        record = self._registry.store.get("persistentvolumes", "", claim["spec"].get("volumeName", ""))
        if record is None or claim["status"].get("phase") == "Bound":
            return
        spec = record.value["spec"]
        reference = spec.get("claimRef", {})
        if (reference.get("namespace"), reference.get("name")) != (meta["namespace"], meta["name"]):
            return
        if reference.get("uid", meta["uid"]) != meta["uid"]:
            return  # it belonged to an earlier claim of this name
        self._set(record.value, "Bound", meta["uid"])
        status = {"phase": "Bound", "accessModes": spec.get("accessModes", []), "capacity": spec.get("capacity", {})}
        target = Target(RESOURCES["persistentvolumeclaims"], meta["namespace"], meta["name"])
        self._registry.modify(target, lambda value: value.update(status=status))

    def _release(self, volume: Object) -> None:
        """Of a claim that is gone: retained, for nobody else."""
        reference = volume["spec"].get("claimRef", {})
        if volume["status"].get("phase") != "Bound":
            return
        claim = self._registry.store.get("persistentvolumeclaims", reference["namespace"], reference["name"])
        if claim is None or claim.value["metadata"]["uid"] != reference.get("uid"):
            self._set(volume, "Released", reference.get("uid"))

    def _set(self, volume: Object, phase: str, claim_uid: str | None) -> None:
        def change(value: Object) -> None:
            value["spec"]["claimRef"]["uid"] = claim_uid
            value["status"]["phase"] = phase

        self._registry.modify(Target(RESOURCES["persistentvolumes"], "", volume["metadata"]["name"]), change)
