"""Who used how much GPU time."""

import asyncio
from datetime import datetime

from msgspec.structs import replace

from services.capacity.context import Context
from services.capacity.domain.usage import DayUsage, Period, Run, usage_by_day
from services.capacity.storage.usage import RUNS_OF
from shared.contracts.auth import Identity
from shared.database import to_struct
from shared.operators import check_operator

EVERYBODY = "*"


async def read_usage(
    context: Context, asker: Identity, *, whose: str | None, period: Period, now: datetime
) -> list[DayUsage]:
    """What was used in a period, by day, user and GPU type.

    Args:
        context: The service's.
        asker: Who wants to know.
        whose: Another user's name, or everybody's: for operators. None: one's own.
        period: Of the past; days to come are empty.
        now: Until when what runs is counted.

    Raises:
        OperatorsOnly: The asker is no operator.
    """
    own = whose is None or whose == asker.username
    if not own:
        check_operator(asker, "see the usage of others")
    rows = await context.database.fetch_all(
        RUNS_OF,
        user_id=asker.user_id if own else None,
        username=None if own or whose == EVERYBODY else whose,
        begins_at=period.begins_at,
        ends_at=period.ends_at,
    )

    def count() -> list[DayUsage]:
        runs = (to_struct(row, Run) for row in rows)
        return usage_by_day((replace(run, username=asker.username) for run in runs) if own else runs, period, now)

    # of a year and of everybody it may be many
    return await asyncio.to_thread(count)
