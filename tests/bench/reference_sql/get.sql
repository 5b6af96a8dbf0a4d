SELECT found.id, found.user_id, found.username, found.name, found.image, found.command, found.working_dir,
found.instance_type, found.gpu_type, found.gpu_count, found.duration_seconds, found.disk_name, found.disk_id,
found.availability_zone, found.ebs_volume_id, found.env_var_names, found.github_user, found.jupyter_port,
found.status, found.outcome, found.requeue_reason, found.version, found.revision, found.submit_message_id,
found.cancel_message_id, found.epoch, found.node, found.capacity_sequence, found.queue_position,
found.estimated_start_at, found.pod_name, found.pod_uid, found.node_ip, found.node_port, found.pod_ends_at,
found.restarts, found.fault, found.fault_since, found.detail, found.status_reason, found.failure_reason,
found.exit_code, found.warning, found.warned_minutes, found.created_at, found.updated_at, found.granted_at,
found.launched_at, found.expires_at, found.unshown_extensions, found.ended_at, found.released_at, access.users,
access.jupyter_wanted, access.jupyter_enabled, access.jupyter_revision, access.jupyter_applied,
access.jupyter_token_sealed, access.jupyter_requested_at, access.jupyter_message_id, access.jupyter_error,
clock_timestamp() AS read_at
FROM (SELECT jobs.id AS id, jobs.user_id AS user_id, jobs.username AS username, jobs.name AS name, jobs.image AS
image, jobs.command AS command, jobs.working_dir AS working_dir, jobs.instance_type AS instance_type, jobs.gpu_type AS
gpu_type, jobs.gpu_count AS gpu_count, jobs.duration_seconds AS duration_seconds, jobs.disk_name AS disk_name,
jobs.disk_id AS disk_id, jobs.availability_zone AS availability_zone, jobs.ebs_volume_id AS ebs_volume_id,
jobs.env_var_names AS env_var_names, jobs.github_user AS github_user, jobs.jupyter_port AS jupyter_port, jobs.status
AS status, jobs.outcome AS outcome, jobs.requeue_reason AS requeue_reason, jobs.version AS version, jobs.revision AS
revision, jobs.submit_message_id AS submit_message_id, jobs.cancel_message_id AS cancel_message_id, jobs.epoch AS
epoch, jobs.node AS node, jobs.capacity_sequence AS capacity_sequence, jobs.queue_position AS queue_position,
jobs.estimated_start_at AS estimated_start_at, jobs.pod_name AS pod_name, jobs.pod_uid AS pod_uid, jobs.node_ip AS
node_ip, jobs.node_port AS node_port, jobs.pod_ends_at AS pod_ends_at, jobs.restarts AS restarts, jobs.fault AS fault,
jobs.fault_since AS fault_since, jobs.detail AS detail, jobs.status_reason AS status_reason, jobs.failure_reason AS
failure_reason, jobs.exit_code AS exit_code, jobs.warning AS warning, jobs.warned_minutes AS warned_minutes,
jobs.created_at AS created_at, jobs.updated_at AS updated_at, jobs.granted_at AS granted_at, jobs.launched_at AS
launched_at, jobs.expires_at AS expires_at, jobs.unshown_extensions AS unshown_extensions, jobs.ended_at AS ended_at,
jobs.released_at AS released_at
FROM jobs
WHERE jobs.user_id = $1::BIGINT AND jobs.id >= $2::UUID AND jobs.id <= $3::UUID ORDER BY jobs.id
 LIMIT 2) AS found JOIN LATERAL (SELECT job_access.users AS users, job_access.jupyter_wanted AS jupyter_wanted,
job_access.jupyter_enabled AS jupyter_enabled, job_access.jupyter_revision AS jupyter_revision,
job_access.jupyter_applied AS jupyter_applied, job_access.jupyter_token_sealed AS jupyter_token_sealed,
job_access.jupyter_requested_at AS jupyter_requested_at, job_access.jupyter_message_id AS jupyter_message_id,
job_access.jupyter_error AS jupyter_error
FROM job_access
WHERE job_access.job_id = found.id
 LIMIT 1) AS access ON true ORDER BY found.id
