"""How much GPU time was used."""

from datetime import date
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from services.capacity.context import Context
from services.capacity.domain.usage import DEFAULT_DAYS, EARLIEST, LATEST, MOST_DAYS, Period
from services.capacity.operations.usage import read_usage
from services.capacity.schemas import Usage
from shared.contracts.auth import Identity
from shared.errors import InvalidInput, Problem
from shared.web.errors import error_responses

_FIRST = f"First day, in UTC, such as `2026-01-20`; without it, {DEFAULT_DAYS} days end with the last"
_LAST = f"Last day, in UTC; without it today. {MOST_DAYS} days at most"
_USER = "For operators: the usage of the user of this name, or `*` for everybody's"


class UsageController(Controller):
    path = "/v1/usage"
    tags = ["Cluster Information"]  # noqa: RUF012 - Litestar's class attribute

    @get(operation_id="get_usage", summary="Get GPU hours by day, user and GPU type", responses=error_responses(403))
    async def usage(
        self,
        *,
        request: Request[Identity, Any, Any],
        context: NamedDependency[Context],
        first: FromQuery[
            Annotated[str | None, QueryParameter(name="from", description=_FIRST, schema_extra={"format": "date"})]
        ] = None,
        last: FromQuery[
            Annotated[str | None, QueryParameter(name="to", description=_LAST, schema_extra={"format": "date"})]
        ] = None,
        user: FromQuery[Annotated[str | None, QueryParameter(description=_USER, max_length=64)]] = None,
    ) -> Usage:
        """Your GPU hours: of each job its GPUs times its time from `started_at` to its end.

        Days are those of UTC. A job that runs over midnight counts with its part on each day, one that still runs until
        now. Days without usage are left out.
        """
        now = context.clock()
        period = _read_period(first, last, now.date())
        return Usage.of(period, await read_usage(context, request.user, whose=user, period=period, now=now))


def _read_period(first: str | None, last: str | None, today: date) -> Period:
    days = {"from": _read_day(first), "to": _read_day(last)}
    problems = [
        Problem("value_error", ("query", name), f"Must be a day from {EARLIEST} to {LATEST}, such as 2026-01-20")
        for name, day in days.items()
        if day is not None and not EARLIEST <= day <= LATEST
    ]
    if problems:
        raise InvalidInput(problems)
    try:
        return Period.of(days["from"], days["to"], today)
    except ValueError as error:
        raise InvalidInput([Problem("value_error", ("query", "from"), str(error))]) from None


def _read_day(text: str | None) -> date | None:
    """None when it is not given; what is no day is one that nobody may ask about."""
    try:
        return None if text is None else msgspec.convert(text, date)
    except msgspec.ValidationError:
        return date.min
