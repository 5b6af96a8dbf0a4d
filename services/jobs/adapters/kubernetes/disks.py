"""A job's disk as its pod mounts it: a persistent volume and its claim."""

import msgspec

from services.jobs.adapters.kubernetes.objects import Object, Objects
from services.jobs.domain.manifests import Manifest
from shared.kubernetes import StatusError

_ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"


class _AttachmentSource(msgspec.Struct, frozen=True, rename="camel"):
    persistent_volume_name: str | None = None


class _AttachmentSpec(msgspec.Struct, frozen=True):
    source: _AttachmentSource = _AttachmentSource()


class _Attachment(msgspec.Struct, frozen=True):
    spec: _AttachmentSpec = _AttachmentSpec()


class Disks(Objects):
    """Persistent volumes and claims of the jobs' disks."""

    async def ensure_disk(self, volume: Manifest, claim: Manifest) -> None:
        """Make a disk's persistent volume and its claim, or adopt them; raises as `ensure_pod`."""
        await self._ensure("persistentvolumes", volume, Object)
        await self._ensure("persistentvolumeclaims", claim, Object)

    async def release_disk(self, name: str) -> bool:
        """Delete a disk's claim and persistent volume of this name, whose pod is gone. Idempotent.

        Returns:
            Whether both are gone and the volume is detached from every node: only then may another job have the disk.
        """
        for kind in ("persistentvolumeclaims", "persistentvolumes"):
            found = await self.find_object(kind, name)
            if found is not None:
                await self.delete_object(kind, name, found.uid)
                if await self.find_object(kind, name) is not None:
                    return False  # protected until the cluster knows that no pod has it
        return not await self._is_attached(name)

    async def _is_attached(self, volume_name: str) -> bool:
        try:
            attachments = await self._list(_ATTACHMENTS, _Attachment)
        except StatusError as error:
            if error.status.is_missing:
                return False  # a cluster that knows no attachments attaches nothing
            raise
        return any(item.spec.source.persistent_volume_name == volume_name for item in attachments.items)
