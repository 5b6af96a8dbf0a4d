"""What the query of a list asks for."""

import re
from urllib.parse import parse_qsl

from services.jobs.domain.job_list import JobQuery
from shared.contracts.jobs import JobStatus
from shared.errors import InvalidInput, Problem

MOST_LIMIT = 500
MOST_OFFSET = 2**31
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_PLAIN = re.compile(r"[a-z0-9=&,]*(?:%2C[a-z0-9=&,]*)*")


def plain_list_query(text: str) -> JobQuery | None:
    """A query in the form that clients send; None when it is another, which may be wrong.

    Raises:
        InvalidInput: A status is unknown.
    """
    if not _PLAIN.fullmatch(text):
        return None
    pairs = parse_qsl(text, keep_blank_values=True)
    given = dict(pairs)
    if len(given) != len(pairs) or not given.keys() <= {"status", "limit", "offset"}:
        return None
    numbers = {name: int(given[name]) for name in ("limit", "offset") if _NUMBER.fullmatch(given.get(name, ""))}
    if len(numbers) != len(given.keys() - {"status"}):
        return None
    query = JobQuery(statuses=read_statuses(given.get("status")), **numbers)
    return query if 1 <= query.limit <= MOST_LIMIT and query.offset <= MOST_OFFSET else None


def read_statuses(text: str | None) -> list[JobStatus] | None:
    """Statuses from a comma-separated list; None when there is no filter, as with an empty list.

    Raises:
        InvalidInput: One of them is unknown.
    """
    if text is None or not text.strip():
        return None
    names = [name.strip() for name in text.split(",")]
    if any(name not in set(JobStatus) for name in names):
        message = f"Must be a comma-separated list of {', '.join(JobStatus)}"
        raise InvalidInput([Problem("literal_error", ("query", "status"), message)])
    return [JobStatus(name) for name in names]
