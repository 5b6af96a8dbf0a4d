"""What a pod owns and dies with it: Service and Ingress that users reach it by, and the Secret that it reads."""

import msgspec

from services.jobs.adapters.kubernetes.objects import Object, Objects
from services.jobs.domain.manifests import Manifest, owner_reference
from services.jobs.domain.pod import Meta


class ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    port: int = 0
    node_port: int | None = None


class ServiceSpec(msgspec.Struct, frozen=True):
    type: str = ""
    selector: dict[str, str] = {}
    ports: list[ServicePort] = []


class Service(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()

    @property
    def node_ports(self) -> dict[str, int | None]:
        """By the names of the ports."""
        return {port.name: port.node_port for port in self.spec.ports}

    def leads_as(self, manifest: Manifest) -> bool:
        """Whether it still leads where the one of this manifest does."""
        wanted = manifest["spec"]
        ports = [(port.name, port.port) for port in self.spec.ports]
        return (self.spec.type, self.spec.selector, ports) == (
            wanted["type"],
            wanted["selector"],
            [(port["name"], port["port"]) for port in wanted["ports"]],
        )


class Owned(Objects):
    """Services, Ingresses and Secrets of the jobs' pods."""

    async def ensure_secret(self, manifest: Manifest) -> None:
        """Make the Secret, or adopt it; raises as `ensure_pod`."""
        await self._ensure("secrets", manifest, Object)

    async def tie_secret(self, name: str, pod_uid: str) -> None:
        """Let the Secret die with the pod of the same name. Idempotent."""
        body = {"metadata": {"ownerReferences": [owner_reference(name, pod_uid)]}}
        await self._call("PATCH", "secrets", name, body=body, model=Object)

    async def ensure_service(self, manifest: Manifest) -> dict[str, int | None]:
        """Make the Service, or adopt it; its node ports by their names. Raises as `ensure_pod`."""
        return (await self._ensure("services", manifest, Service)).node_ports

    async def ensure_ingress(self, manifest: Manifest) -> None:
        """Make the Ingress, or adopt it; raises as `ensure_pod`."""
        await self._ensure("ingresses", manifest, Object)

    async def find_service(self, name: str) -> Service | None:
        """The Service as it is now; None when there is none."""
        return await self._find("services", name, Service)
