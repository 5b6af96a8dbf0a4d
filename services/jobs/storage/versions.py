"""Which jobs a user has, and at which version each is: little to read, whatever the jobs hold."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import aggregate_order_by

from services.jobs.domain.job import OPEN_STATUSES
from services.jobs.domain.job_list import JobQuery, JobVersion, VersionPage
from services.jobs.storage.counts import OF_USER, STATUSES, span_of_change, total_of_user
from services.jobs.storage.tables import TIME, jobs
from shared.database import Row, Statement, in_states

_BYTES = 32
_LIMIT, _OFFSET = (bindparam(name, type_=sa.BigInteger) for name in ("limit", "offset"))
_DEEP = 500
"""Rows before a page from which on it is cheaper to look for the spans of time that it is in, to read ids alone there,
in the index, and then the page's rows."""
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
_ID = bindparam("job_id", type_=sa.Uuid)
_IDS = bindparam("ids", type_=sa.ARRAY(sa.Uuid))
OF_ONE = Statement(sa.select(jobs.c.user_id, VERSION).where(jobs.c.id == _ID))
OF_SEVERAL = Statement(sa.select(jobs.c.user_id, VERSION).where(jobs.c.id == sa.any_(_IDS)))
"""For one it would take longer: PostgreSQL plans anew for each array."""


def list_versions(query: JobQuery) -> Statement:
    """Finds a page (`limit`, `offset`) of a user's (`user_id`) jobs; with a filter, by `statuses`."""
    only_open = query.statuses is not None and OPEN_STATUSES.issuperset(query.statuses)
    filtered = query.statuses is not None
    # of a filter's jobs the next one may be far away
    by_spans = query.offset >= _DEEP or (filtered and not only_open)
    return page_statement(filtered=filtered, only_open=only_open, by_spans=by_spans)


def to_page(row: Row) -> VersionPage:
    """The page that `list_versions` has found."""
    keys = row["versions"]
    versions = [JobVersion(keys[start : start + _BYTES]) for start in range(0, len(keys), _BYTES)] if keys else []
    return VersionPage(versions, row["total"])


@cache
def page_statement(*, filtered: bool, only_open: bool, by_spans: bool) -> Statement:
    """What `list_versions` says: both ways find the same, by counting from the first job or by spans of time."""
    wanted = [jobs.c.user_id == bindparam("user_id")]
    if filtered:
        wanted.append(jobs.c.status == sa.any_(STATUSES))
    if only_open:
        wanted.append(in_states(jobs.c.status, sorted(OPEN_STATUSES)))
    page = _page_by_spans(wanted, filtered=filtered) if by_spans else _page_by_counting(wanted)
    newest_first = (page.c.created_at.desc(), page.c.id.desc())
    versions = sa.func.string_agg(page.c.job_version, aggregate_order_by(sa.text("''::bytea"), *newest_first))
    return Statement(
        sa.select(versions.label("versions"), total_of_user(filtered=filtered).label("total")).select_from(page)
    )


def _page_by_counting(wanted: Sequence[Any]) -> Any:
    return (
        sa.select(jobs.c.id, jobs.c.created_at, VERSION)
        .where(*wanted)
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(_LIMIT)
        .offset(_OFFSET)
        .subquery("page")
    )


def _page_by_spans(wanted: Sequence[Any], *, filtered: bool) -> Any:
    spans = _spans_of_page(filtered=filtered)
    before = _OFFSET - spans.c.newer
    ids = (
        sa.select(jobs.c.id, jobs.c.created_at)
        .where(*wanted, jobs.c.created_at >= spans.c.begins_at, jobs.c.created_at < spans.c.ends_at)
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(sa.func.least(_LIMIT, before + _LIMIT))
        .offset(sa.func.greatest(sa.literal_column("0"), before))
        .lateral("ids")
    )
    # one by one: as a plain join PostgreSQL, which does not know how short a page is, would read the whole table
    found = sa.select(VERSION).where(jobs.c.id == ids.c.id).limit(sa.literal_column("1")).lateral("found")
    return (
        sa.select(ids.c.id, ids.c.created_at, found.c.job_version)
        .select_from(spans.join(ids, sa.true()).join(found, sa.true()))
        .subquery("page")
    )


def _spans_of_page(*, filtered: bool) -> Any:
    """The spans of time that have jobs of the page, and how many jobs of the list are newer than each.

    One span of all times where that is not known: then all are counted from the first.
    """
    of_list = (
        "coalesce(sum(jobs) FILTER (WHERE status = ANY(CAST(:statuses AS text[]))), 0)" if filtered else "sum(jobs)"
    )
    is_unknown = f"EXISTS (SELECT FROM job_counts WHERE {OF_USER} AND created_at = '-infinity')"
    return (
        sa.text(
            "SELECT begins_at, ends_at, CAST(upto - jobs AS bigint) AS newer FROM ("
            "SELECT begins_at, coalesce(lag(begins_at) OVER newest_first, 'infinity') AS ends_at, "
            f"{of_list} AS jobs, sum({of_list}) OVER newest_first AS upto FROM ("
            f"SELECT begins_at, status, jobs FROM job_spans WHERE {OF_USER} UNION ALL "
            f"SELECT {span_of_change()}, status, jobs FROM job_counts AS change "
            f"WHERE {OF_USER} AND created_at > '-infinity') AS known(begins_at, status, jobs) "
            "GROUP BY begins_at WINDOW newest_first AS (ORDER BY begins_at DESC)) AS span "
            "WHERE jobs > 0 AND upto > CAST(:offset AS bigint) "
            f"AND upto - jobs < CAST(:offset AS bigint) + CAST(:limit AS bigint) AND NOT {is_unknown} "
            f"UNION ALL SELECT '-infinity', 'infinity', 0 WHERE {is_unknown}"
        )
        .columns(sa.column("begins_at", TIME), sa.column("ends_at", TIME), sa.column("newer", sa.BigInteger))
        .cte("spans")
    )
