"""The verbs of capacity: one transaction each, state and events together."""

from services.capacity.operations.explaining import explain_job
from services.capacity.operations.following import find_unplaced, follow_job
from services.capacity.operations.placing import PlacingRound, place_jobs
from services.capacity.operations.purging import purge_places
from services.capacity.operations.reading import read_availability, read_cluster_status
from services.capacity.operations.telling import tell_line
from services.capacity.operations.watching import (
    PodListing,
    confirm_node_gone,
    forget_pod,
    list_present_nodes,
    record_nodes,
    record_pod_listing,
    record_pods,
)

__all__ = [
    "PlacingRound",
    "PodListing",
    "confirm_node_gone",
    "explain_job",
    "find_unplaced",
    "follow_job",
    "forget_pod",
    "list_present_nodes",
    "place_jobs",
    "purge_places",
    "read_availability",
    "read_cluster_status",
    "record_nodes",
    "record_pod_listing",
    "record_pods",
    "tell_line",
]
