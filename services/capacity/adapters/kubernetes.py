"""Kubernetes nodes and pods, read only: lists, watches, and the one GET that can say that a node is gone."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from services.capacity.adapters.kubernetes_objects import NodeObject, PodObject, version_number
from shared.kubernetes import KubernetesApi, Listing, ModelT, StatusError, WatchEvent

_NODES = "/api/v1/nodes"
_PODS = "/api/v1/pods"


class Cluster:
    """The nodes and pods of the cluster. Every method raises ClusterUnavailable when Kubernetes gives no answer.

    Args:
        kubeconfig: Path; None: the pod's service account.
    """

    def __init__(self, kubeconfig: str | None) -> None:
        self._api = KubernetesApi(kubeconfig)
        self.close = self._api.close

    async def list_nodes(self) -> Listing[NodeObject]:
        """Every node."""
        return await self._api.list_all(_NODES, NodeObject)

    async def list_pods(self) -> Listing[PodObject]:
        """Every pod of every namespace."""
        return await self._api.list_all(_PODS, PodObject)

    def watch_nodes(self, resource_version: str, seconds: float) -> AsyncGenerator[WatchEvent[NodeObject], None]:
        """What happens to nodes after a list; ends after `seconds`, and when it breaks: then list again."""
        return self._watch(_NODES, NodeObject, resource_version, seconds)

    def watch_pods(self, resource_version: str, seconds: float) -> AsyncGenerator[WatchEvent[PodObject], None]:
        """What happens to pods after a list; as `watch_nodes`."""
        return self._watch(_PODS, PodObject, resource_version, seconds)

    async def node_uid(self, name: str) -> str | None:
        """Uid of the node now, by a live GET; None: Kubernetes says that there is no node of this name.

        Raises:
            ClusterUnavailable: Any other answer, or none. It does not mean that the node is gone.
        """
        try:
            node = await self._api.call("GET", f"{_NODES}/{name}", model=NodeObject)
        except StatusError as error:
            if error.status.is_missing:
                return None
            raise
        return node.metadata.uid

    async def _watch(
        self, path: str, model: type[ModelT], resource_version: str, seconds: float
    ) -> AsyncGenerator[WatchEvent[ModelT], None]:
        events = self._api.watch(path, model, resource_version=resource_version, seconds=seconds)
        async with aclosing(events):
            async for event in events:
                if event.type != "BOOKMARK":
                    yield event


def version_of(listing: Listing[NodeObject] | Listing[PodObject]) -> int:
    """A list's resourceVersion as a number."""
    return version_number(listing.resource_version)
