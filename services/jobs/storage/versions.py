"""Which jobs a user has, and at which version each is: little to read, whatever the jobs hold."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import aggregate_order_by

from services.jobs.domain.job import OPEN_STATUSES
from services.jobs.domain.job_list import JobQuery, JobVersion, VersionPage
from services.jobs.storage.counts import OF_USER, SPAN_OF_CHANGE, STATUSES, total_of_user
from services.jobs.storage.tables import TIME, jobs
from shared.database import Row, Statement

_BYTES = 32
_LIMIT, _OFFSET = (bindparam(name, type_=sa.BigInteger) for name in ("limit", "offset"))
_DEEP = 500
"""Rows before a page from which on it is cheaper to look for the span of time in which it begins, to read ids alone
from there, in the index, and then the page's rows."""
# the time is of no use but after a restore, when revisions are counted from an earlier hour again
VERSION = (
    sa.func.uuid_send(jobs.c.id)
    .op("||")(sa.func.int8send(jobs.c.revision))
    .op("||")(sa.func.timestamptz_send(jobs.c.updated_at))
).label("job_version")


_FIRST, _LAST = bindparam("first_id", type_=sa.Uuid), bindparam("last_id", type_=sa.Uuid)
FIND_OWN = Statement(
    sa.select(VERSION)
    .where(jobs.c.user_id == bindparam("user_id"), jobs.c.id >= _FIRST, jobs.c.id <= _LAST)
    .order_by(jobs.c.id)
    .limit(sa.literal_column("2"))
)
"""Two rows mean that the beginning of the id is ambiguous."""


def list_versions(query: JobQuery) -> Statement:
    """Finds a page (`limit`, `offset`) of a user's (`user_id`) jobs; with a filter, by `statuses`."""
    only_open = query.statuses is not None and OPEN_STATUSES.issuperset(query.statuses)
    return page_statement(filtered=query.statuses is not None, only_open=only_open, deep=query.offset >= _DEEP)


def to_page(row: Row) -> VersionPage:
    """The page that `list_versions` has found."""
    keys = row["versions"]
    versions = [JobVersion(keys[start : start + _BYTES]) for start in range(0, len(keys), _BYTES)] if keys else []
    return VersionPage(versions, row["total"])


@cache
def page_statement(*, filtered: bool, only_open: bool, deep: bool) -> Statement:
    """What `list_versions` says; deep or not it finds the same, and costs less far from the first job or near to it."""
    wanted = [jobs.c.user_id == bindparam("user_id")]
    if filtered:
        wanted.append(jobs.c.status == sa.any_(STATUSES))
    if only_open:
        wanted.append(jobs.c.status.in_([sa.literal_column(f"'{status}'") for status in sorted(OPEN_STATUSES)]))
    page = _deep_page(wanted, filtered=filtered) if deep else _near_page(wanted)
    newest_first = (page.c.created_at.desc(), page.c.id.desc())
    versions = sa.func.string_agg(page.c.job_version, aggregate_order_by(sa.text("''::bytea"), *newest_first))
    return Statement(
        sa.select(versions.label("versions"), total_of_user(filtered=filtered).label("total")).select_from(page)
    )


def _near_page(wanted: Sequence[Any]) -> Any:
    return (
        sa.select(jobs.c.id, jobs.c.created_at, VERSION)
        .where(*wanted)
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(_LIMIT)
        .offset(_OFFSET)
        .subquery("page")
    )


def _deep_page(wanted: Sequence[Any], *, filtered: bool) -> Any:
    start = _start(filtered=filtered)
    ends_at, newer = (sa.select(column).scalar_subquery() for column in (start.c.ends_at, start.c.newer))
    ids = (
        sa.select(jobs.c.id, jobs.c.created_at)
        .where(*wanted, jobs.c.created_at < sa.func.coalesce(ends_at, sa.text("'infinity'")))
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(_LIMIT)
        .offset(_OFFSET - sa.func.coalesce(newer, sa.literal_column("0")))
        .subquery("ids")
    )
    # one by one: as a plain join PostgreSQL, which does not know how short a page is, would read the whole table
    found = sa.select(VERSION).where(jobs.c.id == ids.c.id).limit(sa.literal_column("1")).lateral("found")
    return (
        sa.select(ids.c.id, ids.c.created_at, found.c.job_version)
        .select_from(ids.join(found, sa.true()))
        .subquery("page")
    )


def _start(*, filtered: bool) -> Any:
    """The span of time in which a page begins: when it ends, and how many jobs are newer.

    No row when that is not known: then all are counted from the first.
    """
    filter_ = "AND status = ANY(CAST(:statuses AS text[]))" if filtered else ""
    return (
        sa.text(
            "SELECT ends_at, newer FROM ("
            "SELECT begins_at, coalesce(lag(begins_at) OVER newest_first, 'infinity') AS ends_at, "
            "CAST(sum(sum(jobs)) OVER newest_first - sum(jobs) AS bigint) AS newer FROM ("
            f"SELECT begins_at, jobs FROM job_spans WHERE {OF_USER} {filter_} UNION ALL "
            f"SELECT {SPAN_OF_CHANGE}, jobs FROM job_counts AS change "
            f"WHERE {OF_USER} AND created_at > '-infinity' {filter_}) AS known(begins_at, jobs) "
            "GROUP BY begins_at WINDOW newest_first AS (ORDER BY begins_at DESC)) AS span "
            "WHERE newer <= CAST(:offset AS bigint) "
            f"AND NOT EXISTS (SELECT FROM job_counts WHERE {OF_USER} AND created_at = '-infinity') "
            "ORDER BY begins_at LIMIT 1"
        )
        .columns(sa.column("ends_at", TIME), sa.column("newer", sa.BigInteger))
        .cte("start")
    )
