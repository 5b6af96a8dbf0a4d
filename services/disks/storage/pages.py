"""A page of a listing and the number of all that it could show, in one statement."""

from typing import Any

import sqlalchemy as sa

from services.disks.storage.conditions import LIMIT, OFFSET
from shared.database import Statement


def page_and_total(rows: sa.Table, shown: sa.ColumnElement[bool], *facts: Any) -> Statement:
    """The rows that are shown, newest first, from one snapshot.

    Binds `limit` and `offset` beside what `shown` binds. Each row bears the `total`; an empty page is one row of nulls
    but for it.

    Args:
        rows: A table with `created_at` and `id`.
        shown: Which of its rows are counted and shown.
        facts: Columns beside those of the table.
    """
    page = (
        sa.select(rows, *facts)
        .where(shown)
        .order_by(rows.c.created_at.desc(), rows.c.id)
        .limit(LIMIT)
        .offset(OFFSET)
        .subquery("page")
    )
    total = sa.select(sa.func.count().label("total")).select_from(rows).where(shown).subquery("counted")
    return Statement(
        sa.select(total.c.total, page)
        .select_from(total.outerjoin(page, sa.true()))
        .order_by(page.c.created_at.desc(), page.c.id)
    )
