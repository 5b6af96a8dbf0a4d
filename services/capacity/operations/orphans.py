"""Leases and pods that belong to nobody, as operators see them."""

from datetime import datetime

from services.capacity.operations.measure import Measurer
from shared.contracts.auth import Identity
from shared.operators import check_operator
from shared.orphans import LOOK_FOR_ORPHANS, Orphan

_MESSAGES = {
    "lease_without_pod": "GPUs of the node are leased to the job, and the cluster shows no pod of it there",
    "pod_without_lease": "The pod holds GPUs that are not leased to its job",
    "node_overcommitted": "Pods and leases hold more GPUs of the node than it has",
}


def list_orphans(measurer: Measurer, *, asker: Identity, now: datetime) -> list[Orphan]:
    """Where leases and the cluster have disagreed for long, oldest first.

    Raises:
        OperatorsOnly: The asker is none.
    """
    check_operator(asker, LOOK_FOR_ORPHANS)
    # what is measured together is of one moment: the rest of the order is to be the same at each look
    lasting = sorted(measurer.lasting_mismatches(now), key=lambda one: (one.since, one.kind, one.name, str(one.job_id)))
    return [
        Orphan(
            kind=one.object_kind,
            name=one.name,
            finding=one.kind,
            message=_MESSAGES[one.kind],
            job_id=None if one.job_id is None else str(one.job_id),
            since=one.since,
        )
        for one in lasting
    ]
