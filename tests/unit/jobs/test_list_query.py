"""Queries of a list that need no framework, and those that do."""

import pytest

from services.jobs.api.list_query import plain_list_query
from services.jobs.domain.job_list import JobQuery
from shared.contracts.jobs import JobStatus
from shared.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", JobQuery()),
        ("limit=10", JobQuery(limit=10)),
        ("offset=0&limit=500", JobQuery(limit=500)),
        ("offset=2147483648", JobQuery(offset=2**31)),
        ("status=active,queued&limit=1", JobQuery(statuses=[JobStatus.ACTIVE, JobStatus.QUEUED], limit=1)),
        ("status=active%2Cqueued", JobQuery(statuses=[JobStatus.ACTIVE, JobStatus.QUEUED])),
        ("status=", JobQuery()),
    ],
)
def test_a_usual_query_is_read(text: str, query: JobQuery) -> None:
    assert plain_list_query(text) == query


@pytest.mark.parametrize(
    "text",
    [
        "limit=0",
        "limit=501",
        "limit=05",
        "limit=1e2",
        "limit=",
        "limit=+1",
        "offset=-1",
        "offset=2147483649",
        "offset=99999999999",
        "limit=1&limit=2",
        "status=active&status=queued",
        "status=active%00",
        "Limit=1",
        "page=2",
        "limit",
    ],
)
def test_an_unusual_one_is_left_to_the_framework(text: str) -> None:
    assert plain_list_query(text) is None


def test_an_unknown_status_is_named() -> None:
    with pytest.raises(InvalidInput, match="status"):
        plain_list_query("status=running")
