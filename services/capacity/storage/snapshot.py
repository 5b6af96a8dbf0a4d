"""The snapshot of both endpoints."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import aggregate_order_by

from services.capacity.storage.cluster import nodes_in_use
from services.capacity.storage.tables import (
    calibrations,
    fleet_changes,
    gpu_pods,
    leases,
    nodes,
    queue_counts,
    watches,
)
from shared.database import Statement
from shared.database.tables import inbox

_node_rows = nodes_in_use.subquery("node_rows")
_node_list = sa.select(
    # json is text from the first: jsonb would be built, and written out again
    func.coalesce(func.json_agg(sa.literal_column("node_rows")), sa.text("'[]'::json"))
).select_from(_node_rows)
# kept by triggers as changes, in the transaction of each change: counting costs the same for any length of the queue
_counts = (
    sa.select(
        queue_counts.c.gpu_type,
        queue_counts.c.state,
        queue_counts.c.ready,
        queue_counts.c.cancelling,
        queue_counts.c.status,
        sa.cast(func.sum(queue_counts.c.jobs), sa.BigInteger).label("jobs"),
        sa.cast(func.sum(queue_counts.c.gpus), sa.BigInteger).label("gpus"),
    )
    .group_by(
        queue_counts.c.gpu_type,
        queue_counts.c.state,
        queue_counts.c.ready,
        queue_counts.c.cancelling,
        queue_counts.c.status,
    )
    .having(func.sum(queue_counts.c.jobs) != 0)
    .subquery("counts")
)
# changes of one kind become one row; those that commit meanwhile are not seen and stay
FOLD_COUNTS = Statement(
    sa.text(
        "WITH folded AS (DELETE FROM line_counts WHERE (SELECT count(*) FROM line_counts) > 64 "
        "RETURNING gpu_type, state, ready, cancelling, status, jobs, gpus) "
        "INSERT INTO line_counts (gpu_type, state, ready, cancelling, status, jobs, gpus) "
        "SELECT gpu_type, state, ready, cancelling, status, sum(jobs), sum(gpus) FROM folded "
        "GROUP BY gpu_type, state, ready, cancelling, status HAVING sum(jobs) <> 0 OR sum(gpus) <> 0"
    )
)
FOLD_MARKS = Statement(
    sa.text(
        "WITH folded AS (DELETE FROM fleet_changes WHERE (SELECT count(*) FROM fleet_changes) > 64 RETURNING mark) "
        "INSERT INTO fleet_changes (mark) SELECT sum(mark) FROM folded HAVING count(*) > 0"
    )
)
_count: sa.ColumnClause[Any] = sa.literal_column("counts")
_count_list = sa.select(
    # in one order: equal counts are one text, however they were grouped
    func.coalesce(func.jsonb_agg(aggregate_order_by(func.to_jsonb(_count), _count)), sa.text("'[]'::jsonb"))
).select_from(_counts)
_complete = sa.select(
    sa.case((func.count() == 2, func.min(watches.c.confirmed_at))).label("at")  # noqa: PLR2004 - nodes and pods
).subquery("complete")
# what came in since is in the counts as well; the inbox stands for the queue, whose rows have no time
_newest_of_fleet = func.greatest(
    sa.select(func.max(nodes.c.seen_at)).scalar_subquery(),
    sa.select(func.max(nodes.c.gone_at)).scalar_subquery(),
    sa.select(func.max(gpu_pods.c.seen_at)).scalar_subquery(),
    sa.select(func.max(leases.c.granted_at)).scalar_subquery(),
)
_newest_of_queue = sa.select(func.max(inbox.c.updated_at)).scalar_subquery()
_fleet = sa.select(
    sa.cast(func.coalesce(func.sum(fleet_changes.c.mark), sa.literal_column("0")), sa.Text).label("mark")
).subquery("fleet")
_is_new = _fleet.c.mark.is_distinct_from(sa.bindparam("known_mark", type_=sa.Text))
_forecast = (
    sa.select(
        *(
            sa.cast(func.coalesce(func.sum(column), 0), sa.BigInteger).label(column.key)
            for column in (calibrations.c.starts, calibrations.c.in_time)
        )
    )
    .where(calibrations.c.day > func.current_date() - 30)
    .subquery("forecast")
)
# one statement is one snapshot: nodes, leases and queue cannot disagree, and nothing is written
SNAPSHOT = Statement(
    sa.select(
        _fleet.c.mark,
        # of a fleet that the asker knows (`known_mark`) nothing is read
        sa.case((_is_new, sa.cast(_node_list.scalar_subquery(), sa.Text))).label("nodes"),
        sa.case((_is_new, _newest_of_fleet)).label("fleet_changed_at"),
        # as text: it is decoded only when it is not what it was
        sa.cast(_count_list.scalar_subquery(), sa.Text).label("counts"),
        _complete.c.at.label("confirmed_at"),
        _newest_of_queue.label("queue_changed_at"),
        _forecast.c.starts,
        _forecast.c.in_time.label("starts_in_time"),
    ).select_from(_complete.join(_forecast, sa.true()).join(_fleet, sa.true()))
)
