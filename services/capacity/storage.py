"""Capacity's tables and every statement on them."""

import sqlalchemy as sa
from sqlalchemy import bindparam, func
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, insert

from shared.database import Statement

metadata = sa.MetaData()

nodes = sa.Table(
    "nodes",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("uid", sa.Text, nullable=False),
    sa.Column("resource_version", sa.BigInteger, nullable=False),
    sa.Column("instance_type", sa.Text),
    sa.Column("gpu_type", sa.Text),
    sa.Column("zone", sa.Text),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("ready", sa.Boolean, nullable=False),
    sa.Column("schedulable", sa.Boolean, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("gone_at", sa.DateTime(timezone=True)),
)

gpu_pods = sa.Table(
    "gpu_pods",
    metadata,
    sa.Column("uid", sa.Text, primary_key=True),
    sa.Column("resource_version", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("job_id", sa.Uuid),
    sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("gpu_pods_node", "node"),
)

watches = sa.Table(
    "watches",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=False),
)

places = sa.Table(
    "places",
    metadata,
    sa.Column("job_id", sa.Uuid, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("user_id", sa.BigInteger),
    sa.Column("gpu_type", sa.Text),
    sa.Column("gpu_count", sa.Integer),
    sa.Column("duration_seconds", sa.Integer),
    sa.Column("submitted_at", sa.DateTime(timezone=True)),
    sa.Column("zone", sa.Text),
    sa.Column("ready", sa.Boolean, nullable=False),
    sa.Column("cancelling", sa.Boolean, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("job_version", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("node", sa.Text),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("position", sa.Integer),
    sa.Column("estimated_start_at", sa.DateTime(timezone=True)),
    sa.Column("reason", sa.Text),
    sa.Column("told_at", sa.DateTime(timezone=True)),
    sa.Index("places_in_line", "gpu_type", "submitted_at", "job_id", postgresql_where=sa.text("state = 'waiting'")),
    sa.Index("places_open", "state", postgresql_where=sa.text("state <> 'ended'")),
    sa.Index("places_ended_at", "ended_at", postgresql_where=sa.text("state = 'ended'")),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("gpu_index", sa.Integer, primary_key=True),
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("leases_job_id", "job_id"),
)

announcements = sa.Table(
    "announcements",
    metadata,
    sa.Column("gpu_type", sa.Text, primary_key=True),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("available", sa.Integer, nullable=False),
    sa.Column("in_use", sa.Integer, nullable=False),
    sa.Column("queued", sa.Integer, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
)

_NOW = bindparam("now", type_=sa.DateTime(timezone=True))

# ---------------------------------------------------------------- nodes and pods

_KNOWN_NODES = sa.select(nodes).where(nodes.c.name == sa.any_(bindparam("names", type_=ARRAY(sa.Text))))
LOCK_NODES = Statement(_KNOWN_NODES.order_by(nodes.c.name).with_for_update())
INSERT_NODE = Statement(
    insert(nodes)
    .values({c.name: bindparam(c.name) for c in nodes.c if c.name not in {"version", "gone_at"}} | {"version": 1})
    .on_conflict_do_nothing()
)
UPDATE_NODE = Statement(
    sa.update(nodes)
    .where(nodes.c.name == bindparam("node_name"))
    .values(
        {c.name: bindparam(c.name) for c in nodes.c if c.name not in {"name", "version", "gone_at"}}
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
# held from here to the commit: a node cannot be declared gone between the placer's look at it and its lease
SHARE_NODES = Statement(
    sa.select(nodes.c.name).where(nodes.c.gone_at.is_(None)).order_by(nodes.c.name).with_for_update(read=True)
)

_POD_COLUMNS = ("uid", "resource_version", "name", "node", "gpus", "job_id")
UPSERT_PODS = Statement(
    sa.text(
        "INSERT INTO gpu_pods AS known (uid, resource_version, name, node, gpus, job_id, seen_at) "
        "SELECT pod.*, CAST(:now AS timestamptz) FROM unnest(CAST(:uids AS text[]), "
        "CAST(:resource_versions AS bigint[]), CAST(:names AS text[]), CAST(:nodes AS text[]), "
        "CAST(:gpus AS integer[]), CAST(:job_ids AS uuid[])) AS pod "
        "ON CONFLICT (uid) DO UPDATE SET resource_version = excluded.resource_version, node = excluded.node, "
        "gpus = excluded.gpus, job_id = excluded.job_id, seen_at = excluded.seen_at "
        "WHERE excluded.resource_version >= known.resource_version"
    )
)
DELETE_POD = Statement(
    sa.delete(gpu_pods).where(gpu_pods.c.uid == bindparam("uid"), gpu_pods.c.resource_version <= bindparam("version"))
)
# a pod newer than the list is not missing from it; one that nobody has seen for long is of another cluster
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

# ---------------------------------------------------------------- places

PLACE_COLUMNS = (
    "job_id", "state", "user_id", "gpu_type", "gpu_count", "duration_seconds", "submitted_at", "zone", "ready",
    "cancelling", "status", "job_version", "epoch", "node", "expires_at", "ended_at",
)  # fmt: skip
CREATE_PLACE = Statement(
    insert(places)
    .values(
        job_id=bindparam("job_id"), state="unknown", ready=False, cancelling=False, status="pending",
        job_version=0, epoch=0,
    )
    .on_conflict_do_nothing()
)  # fmt: skip
LOCK_PLACE = Statement(
    sa.select(*(places.c[name] for name in PLACE_COLUMNS))
    .where(places.c.job_id == bindparam("job_id"))
    .with_for_update()
)
SAVE_PLACE = Statement(
    sa.update(places)
    .where(places.c.job_id == bindparam("the_job_id"))
    .values({name: bindparam(name) for name in PLACE_COLUMNS if name != "job_id"})
)
END_LEASE = Statement(
    sa.update(places)
    .where(places.c.job_id == bindparam("the_job_id"))
    .values(position=None, estimated_start_at=None, reason=None, told_at=None, version=places.c.version + 1)
    .returning(places.c.version)
)
DELETE_LEASES = Statement(sa.delete(leases).where(leases.c.job_id == bindparam("job_id")))
LOCK_PLACES_ON_NODE = Statement(
    sa.select(*(places.c[name] for name in PLACE_COLUMNS))
    .where(places.c.state == "leased", places.c.node == bindparam("node"))
    .order_by(places.c.job_id)
    .with_for_update()
)
PURGE_PLACES = Statement(sa.delete(places).where(places.c.state == "ended", places.c.ended_at < bindparam("before")))

# ---------------------------------------------------------------- the placer

_PLACER_LOCK = 0x706C6163
TRY_PLACER_LOCK = Statement(
    sa.select(func.pg_try_advisory_xact_lock(_PLACER_LOCK, func.hashtext(func.current_schema())))
)

_leased_indexes = (
    sa.select(
        func.coalesce(
            func.array_agg(aggregate_order_by(leases.c.gpu_index, leases.c.gpu_index)), sa.cast([], ARRAY(sa.Integer))
        )
    )
    .where(leases.c.node == nodes.c.name)
    .scalar_subquery()
)
# a pod of ours whose job holds no lease there still holds the device: it counts as foreign
_foreign_gpus = (
    sa.select(func.coalesce(func.sum(gpu_pods.c.gpus), 0))
    .where(
        gpu_pods.c.node == nodes.c.name,
        ~sa.exists().where(leases.c.job_id == gpu_pods.c.job_id, leases.c.node == gpu_pods.c.node),
    )
    .scalar_subquery()
)
_nodes_in_use = (
    sa.select(
        nodes.c.name,
        nodes.c.gpu_type,
        nodes.c.gpus,
        nodes.c.ready,
        nodes.c.schedulable,
        nodes.c.zone,
        _leased_indexes.label("leased"),
        _foreign_gpus.label("foreign"),
    )
    .where(nodes.c.gone_at.is_(None), nodes.c.gpu_type.is_not(None))
    .order_by(nodes.c.name)
)
NODES_IN_USE = Statement(_nodes_in_use)
LINE = Statement(
    sa.select(
        places.c.job_id,
        places.c.gpu_type,
        places.c.gpu_count,
        places.c.submitted_at,
        places.c.duration_seconds,
        places.c.ready,
        places.c.zone,
        places.c.position,
        places.c.estimated_start_at,
        places.c.reason,
        places.c.told_at,
    )
    .where(places.c.state == "waiting", places.c.cancelling.is_(False))
    .order_by(places.c.submitted_at, places.c.job_id)
)
HOLDS = Statement(
    sa.select(places.c.node, places.c.gpu_count, places.c.expires_at, places.c.cancelling, places.c.status).where(
        places.c.state == "leased"
    )
)
GRANT = Statement(
    sa.update(places)
    .where(
        places.c.job_id == bindparam("the_job_id"),
        places.c.state == "waiting",
        places.c.ready.is_(True),
        places.c.cancelling.is_(False),
    )
    .values(
        state="leased", epoch=places.c.epoch + 1, version=places.c.version + 1, node=bindparam("node"),
        expires_at=None, position=None, estimated_start_at=None, reason=None, told_at=None,
    )
    .returning(places.c.epoch, places.c.version)
)  # fmt: skip
INSERT_LEASES = Statement(
    sa.text(
        "INSERT INTO leases (node, gpu_index, job_id, epoch, granted_at) "
        "SELECT CAST(:node AS text), unnest(CAST(:indexes AS integer[])), CAST(:job_id AS uuid), "
        "CAST(:epoch AS integer), CAST(:now AS timestamptz)"
    )
)
TELL_JOB = Statement(
    sa.update(places)
    .where(places.c.job_id == bindparam("the_job_id"), places.c.state == "waiting", places.c.cancelling.is_(False))
    .values(
        position=bindparam("position"), estimated_start_at=bindparam("estimated_start_at"),
        reason=bindparam("reason"), told_at=_NOW, version=places.c.version + 1,
    )
    .returning(places.c.version)
)  # fmt: skip
ANNOUNCED = Statement(sa.select(announcements))
ANNOUNCE = Statement(
    insert(announcements)
    .values({c.name: bindparam(c.name) for c in announcements.c if c.name != "version"} | {"version": 1})
    .on_conflict_do_update(
        index_elements=[announcements.c.gpu_type],
        set_={c.name: bindparam(c.name) for c in announcements.c if c.name not in {"version", "gpu_type"}}
        | {"version": announcements.c.version + 1},
    )
    .returning(announcements.c.version)
)

# ---------------------------------------------------------------- the snapshot of both endpoints

_node_rows = _nodes_in_use.subquery("node_rows")
_node_list = sa.select(
    func.coalesce(func.jsonb_agg(func.to_jsonb(sa.literal_column("node_rows"))), sa.text("'[]'::jsonb"))
).select_from(_node_rows)
_counts = (
    sa.select(
        places.c.gpu_type,
        places.c.state,
        places.c.ready,
        places.c.cancelling,
        places.c.status,
        func.count().label("jobs"),
        func.sum(places.c.gpu_count).label("gpus"),
    )
    .where(places.c.state != "ended", places.c.gpu_type.is_not(None))
    .group_by(places.c.gpu_type, places.c.state, places.c.ready, places.c.cancelling, places.c.status)
    .subquery("counts")
)
_count_list = sa.select(
    func.coalesce(func.jsonb_agg(func.to_jsonb(sa.literal_column("counts"))), sa.text("'[]'::jsonb"))
).select_from(_counts)
_as_of = sa.select(sa.case((func.count() == 2, func.min(watches.c.confirmed_at)))).select_from(watches)  # noqa: PLR2004 - nodes and pods
# one statement is one snapshot: nodes, leases and line cannot disagree, and nothing is written
SNAPSHOT = Statement(
    sa.select(
        _node_list.scalar_subquery().label("nodes"),
        _count_list.scalar_subquery().label("counts"),
        _as_of.scalar_subquery().label("as_of"),
    )
)
