"""The objects of the jobs in one Kubernetes namespace, and what is asked about the nodes that they are on.

Every call has a deadline. A call that ended without an answer may have had its effect: creating is therefore looking,
then adopting or making, under names that are the same at every try.
"""

from services.jobs.adapters.kubernetes.disks import Disks
from services.jobs.adapters.kubernetes.logs import LogNotThere, Logs
from services.jobs.adapters.kubernetes.objects import KINDS, ClusterForbids, ClusterRefused, NameTaken
from services.jobs.adapters.kubernetes.owned import Owned
from services.jobs.adapters.kubernetes.pods import Pods
from shared.kubernetes import CALL_SECONDS, ClusterUnavailable

__all__ = [
    "CALL_SECONDS",
    "KINDS",
    "Cluster",
    "ClusterForbids",
    "ClusterRefused",
    "ClusterUnavailable",
    "LogNotThere",
    "NameTaken",
]


class Cluster(Pods, Owned, Disks, Logs):
    """All of it, over one set of connections."""
