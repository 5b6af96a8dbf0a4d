"""The queue, the GPUs, and what disagrees about them."""

import sqlalchemy as sa

from services.capacity.storage.queue import IN_QUEUE
from shared.database import Statement

QUEUE = Statement(
    sa.text(
        "SELECT gpu_type, count(*) AS jobs, min(submitted_at) FILTER (WHERE ready) AS oldest, "
        f"min(first_p90_at) FILTER (WHERE ready) AS promised FROM places WHERE {IN_QUEUE} AND gpu_type IS NOT NULL "
        "GROUP BY gpu_type"
    )
)
"""Of each type: jobs that wait, when the one was submitted that has waited longest for nothing but GPUs, and the
earliest p90 of a start that was promised to such a job; null: none was."""
LEASED_WITHOUT_POD = Statement(
    sa.text(
        "SELECT job_id || '/' || epoch AS key, node AS name, job_id FROM places AS entry "
        "WHERE state = 'leased' AND NOT EXISTS "
        "(SELECT FROM gpu_pods WHERE gpu_pods.job_id = entry.job_id AND gpu_pods.node = entry.node)"
    )
)
PODS_WITHOUT_LEASE = Statement(
    sa.text(
        "SELECT uid AS key, name, job_id FROM gpu_pods AS pod WHERE job_id IS NOT NULL AND gpus > 0 AND NOT EXISTS "
        "(SELECT FROM leases WHERE leases.job_id = pod.job_id AND leases.node = pod.node)"
    )
)
