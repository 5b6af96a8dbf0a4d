"""Capacity's tables.

Some names in SQL are older than the words that the code uses. They stay, so that replicas of two releases can work on
the same tables during an upgrade: `places` are the queue's entries, `line_counts` their counts, `told_at` is when
something was announced, and `cpu_worth` and `memory_worth` are numbers of GPUs for which CPU and memory are enough.
"""

import sqlalchemy as sa

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
    sa.Column("cpu_worth", sa.Float, key="gpus_by_cpu"),
    sa.Column("memory_worth", sa.Float, key="gpus_by_memory"),
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
    sa.Column("cpu_worth", sa.Float, key="gpus_by_cpu"),
    sa.Column("memory_worth", sa.Float, key="gpus_by_memory"),
    sa.Index("gpu_pods_node", "node"),
)

watches = sa.Table(
    "watches",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=False),
)

queue_entries = sa.Table(
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
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
    sa.Column("priority_version", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("avoids", sa.Text),
    sa.Column("granted_at", sa.DateTime(timezone=True)),
    sa.Column("started_at", sa.DateTime(timezone=True)),
    sa.Column("estimated_p90_at", sa.DateTime(timezone=True)),
    sa.Column("first_p90_at", sa.DateTime(timezone=True)),
    sa.Column("username", sa.Text),
    sa.Column("traceparent", sa.Text),
    sa.Index(
        "places_in_line",
        "gpu_type",
        sa.text("priority DESC"),
        "submitted_at",
        "job_id",
        postgresql_where=sa.text("state = 'waiting'"),
    ),
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

queue_counts = sa.Table(
    "line_counts",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("gpu_type", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("ready", sa.Boolean, nullable=False),
    sa.Column("cancelling", sa.Boolean, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("jobs", sa.BigInteger, nullable=False),
    sa.Column("gpus", sa.BigInteger, nullable=False),
)

fleet_changes = sa.Table(
    "fleet_changes",
    metadata,
    # triggers add one for each statement that changes nodes, leases or pods: the sum is another after each change
    sa.Column("mark", sa.Numeric, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("job_id", sa.Uuid, primary_key=True),
    sa.Column("gpu_type", sa.Text, nullable=False),
    sa.Column("requested_seconds", sa.Float, nullable=False),
    sa.Column("prepared_seconds", sa.Float, nullable=False),
    sa.Column("ran_seconds", sa.Float, nullable=False),
    sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("user_id", sa.BigInteger),
    sa.Column("username", sa.Text),
    sa.Column("gpu_count", sa.Integer),
    sa.Index("runs_ended_at", "ended_at"),
)

calibrations = sa.Table(
    "calibrations",
    metadata,
    sa.Column("gpu_type", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("starts", sa.BigInteger, nullable=False),
    sa.Column("in_time", sa.BigInteger, nullable=False),
    sa.Column("factor", sa.Float, nullable=False),
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
