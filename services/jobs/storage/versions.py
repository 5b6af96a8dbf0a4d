"""Which jobs a user has, and at which version each is: little to read, whatever the jobs hold."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import aggregate_order_by

from services.jobs.domain.job import OPEN_STATUSES
from services.jobs.domain.job_list import JobQuery, JobVersion, VersionPage
from services.jobs.storage.counts import STATUSES, total_of_user
from services.jobs.storage.tables import jobs
from shared.database import Row, Statement

_BYTES = 32
_DEEP = 500
"""Rows before a page from which on it is cheaper to read their ids alone, in the index, and then the page's rows."""
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
    return _list_versions(filtered=query.statuses is not None, only_open=only_open, deep=query.offset >= _DEEP)


def to_page(row: Row) -> VersionPage:
    """The page that `list_versions` has found."""
    keys = row["versions"]
    versions = [JobVersion(keys[start : start + _BYTES]) for start in range(0, len(keys), _BYTES)] if keys else []
    return VersionPage(versions, row["total"])


@cache
def _list_versions(*, filtered: bool, only_open: bool, deep: bool) -> Statement:
    wanted = [jobs.c.user_id == bindparam("user_id")]
    if filtered:
        wanted.append(jobs.c.status == sa.any_(STATUSES))
    if only_open:
        wanted.append(jobs.c.status.in_([sa.literal_column(f"'{status}'") for status in sorted(OPEN_STATUSES)]))
    page = (_deep_page if deep else _near_page)(wanted)
    newest_first = (page.c.created_at.desc(), page.c.id.desc())
    versions = sa.func.string_agg(page.c.job_version, aggregate_order_by(sa.text("''::bytea"), *newest_first))
    return Statement(
        sa.select(versions.label("versions"), total_of_user(filtered=filtered).label("total")).select_from(page)
    )


def _near_page(wanted: Sequence[Any]) -> Any:
    return _page(sa.select(jobs.c.id, jobs.c.created_at, VERSION), wanted).subquery("page")


def _deep_page(wanted: Sequence[Any]) -> Any:
    ids = _page(sa.select(jobs.c.id, jobs.c.created_at), wanted).subquery("ids")
    # one by one: as a plain join PostgreSQL, which does not know how short a page is, would read the whole table
    found = sa.select(VERSION).where(jobs.c.id == ids.c.id).limit(sa.literal_column("1")).lateral("found")
    return (
        sa.select(ids.c.id, ids.c.created_at, found.c.job_version)
        .select_from(ids.join(found, sa.true()))
        .subquery("page")
    )


def _page(rows: Any, wanted: Sequence[Any]) -> Any:
    return (
        rows.where(*wanted)
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
        .limit(bindparam("limit", type_=sa.BigInteger))
        .offset(bindparam("offset", type_=sa.BigInteger))
    )
