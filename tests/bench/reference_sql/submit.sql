-- users jupyter_wanted jupyter_enabled jupyter_revision jupyter_applied jupyter_token_sealed jupyter_requested_at
-- jupyter_message_id jupyter_error id user_id username name image command working_dir instance_type gpu_type
-- gpu_count duration_seconds disk_name disk_id availability_zone ebs_volume_id env_var_names github_user
-- jupyter_port status outcome requeue_reason version revision cancel_message_id epoch node capacity_sequence
-- queue_position estimated_start_at pod_name pod_uid node_ip node_port pod_ends_at restarts fault fault_since detail
-- status_reason failure_reason exit_code warning warned_minutes created_at updated_at granted_at launched_at
-- expires_at unshown_extensions ended_at released_at request_mac env_sealed due_at event_id type subject entity_id
-- entity_version occurred_at request_id data

WITH message AS (SELECT nextval('outbox_id_seq') AS id), inserted AS (INSERT INTO jobs (id, user_id, username, name,
image, command, working_dir, instance_type, gpu_type, gpu_count, duration_seconds, disk_name, disk_id,
availability_zone, ebs_volume_id, env_var_names, github_user, jupyter_port, status, outcome, requeue_reason, version,
revision, submit_message_id, cancel_message_id, epoch, node, capacity_sequence, queue_position, estimated_start_at,
pod_name, pod_uid, node_ip, node_port, pod_ends_at, restarts, fault, fault_since, detail, status_reason,
failure_reason, exit_code, warning, warned_minutes, created_at, updated_at, granted_at, launched_at, expires_at,
unshown_extensions, ended_at, released_at, request_mac, env_sealed, due_at) SELECT $10::UUID AS anon_10, $11::BIGINT
AS anon_11, $12::VARCHAR AS anon_12, $13::VARCHAR AS anon_13, $14::VARCHAR AS anon_14, $15::VARCHAR AS anon_15,
$16::VARCHAR AS anon_16, $17::VARCHAR AS anon_17, $18::VARCHAR AS anon_18, $19::INTEGER AS anon_19, $20::INTEGER AS
anon_20, $21::VARCHAR AS anon_21, $22::UUID AS anon_22, $23::VARCHAR AS anon_23, $24::VARCHAR AS anon_24, $25::JSONB
AS anon_25, $26::VARCHAR AS anon_26, $27::INTEGER AS anon_27, $28::VARCHAR AS anon_28, $29::VARCHAR AS anon_29,
$30::VARCHAR AS anon_30, $31::BIGINT AS anon_31, $32::BIGINT AS anon_32, message.id AS id, $33::BIGINT AS anon_33,
$34::BIGINT AS anon_34, $35::VARCHAR AS anon_35, $36::BIGINT AS anon_36, $37::INTEGER AS anon_37, $38::TIMESTAMP WITH
TIME ZONE AS anon_38, $39::VARCHAR AS anon_39, $40::VARCHAR AS anon_40, $41::VARCHAR AS anon_41, $42::INTEGER AS
anon_42, $43::TIMESTAMP WITH TIME ZONE AS anon_43, $44::INTEGER AS anon_44, $45::VARCHAR AS anon_45, $46::TIMESTAMP
WITH TIME ZONE AS anon_46, $47::VARCHAR AS anon_47, $48::VARCHAR AS anon_48, $49::VARCHAR AS anon_49, $50::INTEGER AS
anon_50, $51::VARCHAR AS anon_51, $52::INTEGER AS anon_52, $53::TIMESTAMP WITH TIME ZONE AS anon_53, $54::TIMESTAMP
WITH TIME ZONE AS anon_54, $55::TIMESTAMP WITH TIME ZONE AS anon_55, $56::TIMESTAMP WITH TIME ZONE AS anon_56,
$57::TIMESTAMP WITH TIME ZONE AS anon_57, $58::JSONB AS anon_58, $59::TIMESTAMP WITH TIME ZONE AS anon_59,
$60::TIMESTAMP WITH TIME ZONE AS anon_60, $61::BYTEA AS anon_61, $62::BYTEA AS anon_62, $63::TIMESTAMP WITH TIME ZONE
AS anon_63 FROM message ON CONFLICT (id) DO NOTHING RETURNING jobs.id, jobs.revision, jobs.status, jobs.status_reason,
jobs.updated_at, jobs.submit_message_id), access AS (INSERT INTO job_access (job_id, users, jupyter_wanted,
jupyter_enabled, jupyter_revision, jupyter_applied, jupyter_token_sealed, jupyter_requested_at, jupyter_message_id,
jupyter_error) SELECT inserted.id AS id, $1::JSONB AS anon_1, $2::BOOLEAN AS anon_2, $3::BOOLEAN AS anon_3, $4::BIGINT
AS anon_4, $5::BIGINT AS anon_5, $6::BYTEA AS anon_6, $7::TIMESTAMP WITH TIME ZONE AS anon_7, $8::BIGINT AS anon_8,
$9::VARCHAR AS anon_9 FROM inserted), told AS (INSERT INTO job_history (job_id, revision, status, reason, at) SELECT
inserted.id AS id, inserted.revision AS revision, inserted.status AS status, inserted.status_reason AS status_reason,
inserted.updated_at AS updated_at FROM inserted), event AS (INSERT INTO outbox (id, event_id, type, subject,
entity_id, entity_version, occurred_at, request_id, data) SELECT inserted.submit_message_id AS submit_message_id,
$64::UUID AS event_id, $65::VARCHAR AS type, $66::VARCHAR AS subject, $67::VARCHAR AS entity_id, $68::BIGINT AS
entity_version, $69::TIMESTAMP WITH TIME ZONE AS occurred_at, $70::VARCHAR AS request_id, $71::JSONB AS data FROM
inserted) SELECT inserted.submit_message_id FROM inserted
