"""Tables of the jobs service."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

metadata = sa.MetaData()
TIME = sa.DateTime(timezone=True)
_OF_THE_RELEASE_BEFORE = (
    sa.Column("users", JSONB, nullable=False, server_default="[]"),
    sa.Column("jupyter_wanted", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("jupyter_enabled", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("jupyter_revision", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("jupyter_applied", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("jupyter_requested_at", TIME),
    sa.Column("jupyter_message_id", sa.BigInteger),
    sa.Column("jupyter_error", sa.Text),
    sa.Column("jupyter_token_sealed", sa.LargeBinary),
    sa.Column("access_due_at", TIME),
    sa.Column("access_worked_until", TIME),
    sa.Column("access_worked_by", sa.Uuid),
    sa.Column("log_kept", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("log_final", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("log_tries", sa.Integer, nullable=False, server_default="0"),
)
"""Where replicas of the release before read and write what is in `job_access` and `job_logs` now. Nothing here does:
the triggers of migrations 0009 and 0010 carry it to and fro, and the next release may drop both."""
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("name", sa.Text),
    sa.Column("image", sa.Text, nullable=False),
    sa.Column("command", sa.Text),
    sa.Column("working_dir", sa.Text),
    sa.Column("instance_type", sa.Text, nullable=False),
    sa.Column("gpu_type", sa.Text, nullable=False),
    sa.Column("gpu_count", sa.Integer, nullable=False),
    sa.Column("duration_seconds", sa.Integer, nullable=False),
    sa.Column("disk_name", sa.Text),
    sa.Column("disk_id", sa.Uuid),
    sa.Column("availability_zone", sa.Text),
    sa.Column("ebs_volume_id", sa.Text),
    sa.Column("env_var_names", JSONB, nullable=False),
    sa.Column("github_user", sa.Text),
    sa.Column("jupyter_port", sa.Integer),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text),
    sa.Column("requeue_reason", sa.Text),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("submit_message_id", sa.BigInteger, nullable=False),
    sa.Column("cancel_message_id", sa.BigInteger),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("node", sa.Text),
    sa.Column("capacity_sequence", sa.BigInteger, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
    sa.Column("queue_position", sa.Integer),
    sa.Column("estimated_start_at", TIME),
    sa.Column("pod_name", sa.Text),
    sa.Column("pod_uid", sa.Text),
    sa.Column("node_ip", sa.Text),
    sa.Column("node_port", sa.Integer),
    sa.Column("pod_ends_at", TIME),
    sa.Column("restarts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("fault", sa.Text),
    sa.Column("fault_since", TIME),
    sa.Column("detail", sa.Text),
    sa.Column("status_reason", sa.Text),
    sa.Column("failure_reason", sa.Text),
    sa.Column("exit_code", sa.Integer),
    sa.Column("warning", sa.Text),
    sa.Column("warned_minutes", sa.Integer),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME, nullable=False),
    sa.Column("granted_at", TIME),
    sa.Column("launched_at", TIME),
    sa.Column("expires_at", TIME),
    sa.Column("unshown_extensions", JSONB, nullable=False, server_default="[]"),
    sa.Column("ended_at", TIME),
    sa.Column("released_at", TIME),
    sa.Column("traceparent", sa.Text),
    # below: not part of domain.job.Job
    sa.Column("request_mac", sa.LargeBinary, nullable=False),
    sa.Column("env_sealed", sa.LargeBinary),
    sa.Column("due_at", TIME, nullable=False),
    sa.Column("worked_until", TIME),
    sa.Column("worked_by", sa.Uuid),
    *_OF_THE_RELEASE_BEFORE,
    sa.Index("jobs_of_user", "user_id", sa.text("created_at DESC"), sa.text("id DESC"), postgresql_include=["status"]),
    sa.Index("jobs_of_user_by_id", "user_id", "id"),
    sa.Index(
        "jobs_open_of_user",
        "user_id",
        sa.text("created_at DESC"),
        sa.text("id DESC"),
        postgresql_where=sa.text("status IN ('active', 'pending', 'preparing', 'queued')"),
    ),
    sa.Index("jobs_waiting", "id", postgresql_where=sa.text("status IN ('pending', 'queued')")),
    sa.Index("jobs_due", "due_at", postgresql_where=sa.text("node IS NOT NULL AND released_at IS NULL")),
    sa.Index("jobs_released", "released_at", postgresql_where=sa.text("released_at IS NOT NULL")),
    sa.Index("jobs_with_access_due", "access_due_at", postgresql_where=sa.text("access_due_at IS NOT NULL")),
)
job_access = sa.Table(
    "job_access",
    metadata,
    sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("users", JSONB, nullable=False, server_default="[]"),
    sa.Column("ssh_host_keys", JSONB(none_as_null=True)),
    sa.Column("jupyter_wanted", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("jupyter_enabled", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("jupyter_revision", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("jupyter_applied", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("jupyter_requested_at", TIME),
    sa.Column("jupyter_message_id", sa.BigInteger),
    sa.Column("jupyter_error", sa.Text),
    sa.Column("jupyter_token_sealed", sa.LargeBinary),
    # of the worker that brings it into the pod; null when there is nothing to bring
    sa.Column("due_at", TIME),
    sa.Column("worked_until", TIME),
    sa.Column("worked_by", sa.Uuid),
    sa.Index("job_access_due", "due_at", postgresql_where=sa.text("due_at IS NOT NULL")),
)
job_history = sa.Table(
    "job_history",
    metadata,
    sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("at", TIME, nullable=False),
)
job_users = sa.Table(
    "job_users",
    metadata,
    sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    # GitHub's name in lower case
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("keys", JSONB, nullable=False),
    sa.Column("fetched_at", TIME, nullable=False),
)
disabled_users = sa.Table(
    "disabled_users",
    metadata,
    sa.Column("user_id", sa.BigInteger, primary_key=True, autoincrement=False),
    # auth's number of the change: what is older changes nothing
    sa.Column("sequence", sa.BigInteger, nullable=False),
    # when the user's jobs end; null when the user was enabled again
    sa.Column("jobs_end_at", TIME),
)
job_logs = sa.Table(
    "job_logs",
    metadata,
    sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    # compressed, then encrypted: users print what they should not; null when it could not be had so far
    sa.Column("sealed", sa.LargeBinary),
    sa.Column("kept_at", TIME),
    # what is stored is all that the command wrote, as far as it is kept
    sa.Column("final", sa.Boolean, nullable=False, server_default="false"),
    # how often it could not be had from the pod
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
)
job_counts = sa.Table(
    "job_counts",
    metadata,
    # the sum of a user's rows counts; triggers on `jobs` add them, and they are folded from time to time
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("jobs", sa.BigInteger, nullable=False),
    # the second in which these jobs were submitted; null when they are in `job_spans`, and -infinity when a replica of
    # the release before has folded them, so that nobody knows in which span they are
    sa.Column("created_at", TIME, server_default=sa.text("'-infinity'")),
    sa.Index("job_counts_of_user", "user_id"),
)
job_spans = sa.Table(
    "job_spans",
    metadata,
    # jobs that were submitted from then on and before the user's next span begins, in seconds; the sum of rows counts
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("begins_at", TIME, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("jobs", sa.BigInteger, nullable=False),
    sa.Index("job_spans_of_user", "user_id", "begins_at"),
)
webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger, nullable=False),
    sa.Column("types", sa.ARRAY(sa.Text), nullable=False),
    # no foreign key: a webhook outlives what it is about
    sa.Column("job_id", sa.Uuid),
    sa.Column("format", sa.Text, nullable=False),
    # its URL and secret, encrypted
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    # of the worker that sends its messages
    sa.Column("worked_until", TIME),
    sa.Column("worked_by", sa.Uuid),
    sa.Index("webhooks_of_user", "user_id"),
)
webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    # in the order in which events were taken in
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("webhook_id", sa.Uuid, sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("message_id", sa.Uuid, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    # what it is about: its messages keep their order
    sa.Column("entity", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="pending"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("created_at", TIME, nullable=False),
    # null when nothing is tried any more
    sa.Column("due_at", TIME),
    sa.Column("last_attempt_at", TIME),
    sa.Column("last_status", sa.Integer),
    sa.Column("last_error", sa.Text),
    sa.UniqueConstraint("webhook_id", "message_id", name="webhook_deliveries_once"),
    sa.Index(
        "webhook_deliveries_pending", "webhook_id", "entity", "id", postgresql_where=sa.text("status = 'pending'")
    ),
    sa.Index("webhook_deliveries_created_at", "created_at"),
)
