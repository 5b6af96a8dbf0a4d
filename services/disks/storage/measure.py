"""What waits too long."""

import sqlalchemy as sa

from services.disks.domain.operation import OperationStatus
from services.disks.storage.conditions import NOW, still_open
from services.disks.storage.tables import operations
from shared.database import Statement, word

OVERDUE = Statement(
    sa.select(sa.func.min(operations.c.worked_until)).where(still_open, operations.c.worked_until <= NOW)
)
"""Since when the operation is due that has waited longest for a worker; null: none is."""
# one that was recorded for later is not begun, and not late
_begun = sa.or_(operations.c.status == word(OperationStatus.RUNNING), operations.c.worked_until <= NOW)
OLDEST = Statement(
    sa.select(operations.c.action, sa.func.min(operations.c.created_at).label("created_at"))
    .where(still_open, _begun)
    .group_by(operations.c.action)
)
"""When the oldest operation of each action was asked for that is not done."""
