"""Statements on nodes, and on the pods that hold their GPUs."""

import sqlalchemy as sa
from sqlalchemy import bindparam, func
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, insert

from services.capacity.storage.tables import gpu_pods, leases, nodes, watches
from shared.database import Statement

_NOW = bindparam("now", type_=sa.DateTime(timezone=True))

LOCK_NODES = Statement(
    sa.select(*(column.label(column.key) for column in nodes.c))
    .where(nodes.c.name == sa.any_(bindparam("names", type_=ARRAY(sa.Text))))
    .order_by(nodes.c.name)
    .with_for_update()
)
INSERT_NODE = Statement(
    insert(nodes)
    .values({c.key: bindparam(c.key) for c in nodes.c if c.key not in {"version", "gone_at"}} | {"version": 1})
    .on_conflict_do_nothing()
)
UPDATE_NODE = Statement(
    sa.update(nodes)
    .where(nodes.c.name == bindparam("node_name"))
    .values(
        {c.key: bindparam(c.key) for c in nodes.c if c.key not in {"name", "version", "gone_at"}}
        | {"version": nodes.c.version + bindparam("step", type_=sa.BigInteger), "gone_at": None}
    )
    .returning(nodes.c.version)
)
MARK_NODE_GONE = Statement(
    sa.update(nodes)
    .where(nodes.c.name == bindparam("node_name"), nodes.c.uid == bindparam("uid"), nodes.c.gone_at.is_(None))
    .values(gone_at=_NOW, ready=False, schedulable=False, version=nodes.c.version + 1)
    .returning(nodes)
)
PRESENT_NODES = Statement(sa.select(nodes.c.name, nodes.c.uid).where(nodes.c.gone_at.is_(None)))
# locked until the commit: no node is declared gone between the scheduler's look at it and its lease
SHARE_NODES = Statement(
    sa.select(nodes.c.name)
    .where(nodes.c.name == sa.any_(bindparam("names", type_=ARRAY(sa.Text))), nodes.c.gone_at.is_(None))
    .order_by(nodes.c.name)
    .with_for_update(read=True)
)

UPSERT_PODS = Statement(
    sa.text(
        "INSERT INTO gpu_pods AS known "
        "(uid, resource_version, name, node, gpus, job_id, cpu_worth, memory_worth, seen_at) "
        "SELECT pod.*, CAST(:now AS timestamptz) FROM unnest(CAST(:uids AS text[]), "
        "CAST(:resource_versions AS bigint[]), CAST(:names AS text[]), CAST(:nodes AS text[]), "
        "CAST(:gpus AS integer[]), CAST(:job_ids AS uuid[]), "
        "CAST(:gpus_by_cpu AS float[]), CAST(:gpus_by_memory AS float[])) AS pod "
        "ON CONFLICT (uid) DO UPDATE SET resource_version = excluded.resource_version, node = excluded.node, "
        "gpus = excluded.gpus, job_id = excluded.job_id, cpu_worth = excluded.cpu_worth, "
        "memory_worth = excluded.memory_worth, seen_at = excluded.seen_at "
        "WHERE excluded.resource_version >= known.resource_version"
    )
)
DELETE_POD = Statement(
    sa.delete(gpu_pods).where(gpu_pods.c.uid == bindparam("uid"), gpu_pods.c.resource_version <= bindparam("version"))
)
# a pod that is newer than the list is not missing from it; one that was not seen for long is of another cluster
DELETE_MISSING_PODS = Statement(
    sa.delete(gpu_pods).where(
        gpu_pods.c.uid != sa.all_(bindparam("uids", type_=ARRAY(sa.Text))),
        sa.or_(gpu_pods.c.resource_version <= bindparam("version"), gpu_pods.c.seen_at < bindparam("forgotten_before")),
    )
)
CONFIRM_WATCH = Statement(
    insert(watches)
    .values(kind=bindparam("kind"), confirmed_at=_NOW)
    .on_conflict_do_update(
        index_elements=[watches.c.kind], set_={"confirmed_at": func.greatest(watches.c.confirmed_at, _NOW)}
    )
)

_HELD_BY_PODS = (gpu_pods.c.gpus, gpu_pods.c.gpus_by_cpu, gpu_pods.c.gpus_by_memory)
# of all nodes at once, and not for each of them: what is asked for one by one takes the longer the more nodes there are
_leased = (
    sa.select(
        leases.c.node,
        func.array_agg(aggregate_order_by(leases.c.gpu_index, leases.c.gpu_index)).label("indexes"),
    )
    .group_by(leases.c.node)
    .subquery("leased")
)
# a job's pod still holds the device when its job has no lease there any more: it counts as foreign
_foreign = (
    sa.select(gpu_pods.c.node, *(func.sum(column).label(column.key) for column in _HELD_BY_PODS))
    .where(~sa.exists().where(leases.c.job_id == gpu_pods.c.job_id, leases.c.node == gpu_pods.c.node))
    .group_by(gpu_pods.c.node)
    .subquery("foreign_pods")
)
nodes_in_use = (
    sa.select(
        nodes.c.name,
        nodes.c.gpu_type,
        nodes.c.gpus,
        nodes.c.ready,
        nodes.c.schedulable,
        nodes.c.zone,
        func.coalesce(_leased.c.indexes, sa.cast([], ARRAY(sa.Integer))).label("leased"),
        func.coalesce(_foreign.c.gpus, 0).label("foreign"),
        (nodes.c.gpus_by_cpu - func.coalesce(_foreign.c.gpus_by_cpu, 0)).label("gpus_by_free_cpu"),
        (nodes.c.gpus_by_memory - func.coalesce(_foreign.c.gpus_by_memory, 0)).label("gpus_by_free_memory"),
    )
    .select_from(
        nodes.outerjoin(_leased, _leased.c.node == nodes.c.name).outerjoin(_foreign, _foreign.c.node == nodes.c.name)
    )
    .where(nodes.c.gone_at.is_(None), nodes.c.gpu_type.is_not(None))
    .order_by(nodes.c.name)
)
NODES_IN_USE = Statement(nodes_in_use)
