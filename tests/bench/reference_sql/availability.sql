SELECT (SELECT coalesce(jsonb_agg(to_jsonb(node_rows)), '[]'::jsonb) AS coalesce_1
FROM (SELECT nodes.name AS name, nodes.gpu_type AS gpu_type, nodes.gpus AS gpus, nodes.ready AS ready,
nodes.schedulable AS schedulable, nodes.zone AS zone, (SELECT coalesce(array_agg(leases.gpu_index ORDER BY
leases.gpu_index), CAST(ARRAY[]::INTEGER[] AS INTEGER[])) AS coalesce_2
FROM leases
WHERE leases.node = nodes.name) AS leased, (SELECT coalesce(sum(gpu_pods.gpus), 0::INTEGER) AS coalesce_3
FROM gpu_pods
WHERE gpu_pods.node = nodes.name AND NOT (EXISTS (SELECT *
FROM leases
WHERE leases.job_id = gpu_pods.job_id AND leases.node = gpu_pods.node))) AS "foreign", nodes.cpu_worth - (SELECT
coalesce(sum(gpu_pods.cpu_worth), 0::INTEGER) AS coalesce_5
FROM gpu_pods
WHERE gpu_pods.node = nodes.name AND NOT (EXISTS (SELECT *
FROM leases
WHERE leases.job_id = gpu_pods.job_id AND leases.node = gpu_pods.node))) AS gpus_by_free_cpu, nodes.memory_worth -
(SELECT coalesce(sum(gpu_pods.memory_worth), 0::INTEGER) AS coalesce_7
FROM gpu_pods
WHERE gpu_pods.node = nodes.name AND NOT (EXISTS (SELECT *
FROM leases
WHERE leases.job_id = gpu_pods.job_id AND leases.node = gpu_pods.node))) AS gpus_by_free_memory
FROM nodes
WHERE nodes.gone_at IS NULL AND nodes.gpu_type IS NOT NULL ORDER BY nodes.name) AS node_rows) AS nodes, (SELECT
coalesce(jsonb_agg(to_jsonb(counts)), '[]'::jsonb) AS coalesce_9
FROM (SELECT line_counts.gpu_type AS gpu_type, line_counts.state AS state, line_counts.ready AS ready,
line_counts.cancelling AS cancelling, line_counts.status AS status, CAST(sum(line_counts.jobs) AS BIGINT) AS jobs,
CAST(sum(line_counts.gpus) AS BIGINT) AS gpus
FROM line_counts GROUP BY line_counts.gpu_type, line_counts.state, line_counts.ready, line_counts.cancelling,
line_counts.status
HAVING sum(line_counts.jobs) != 0::BIGINT) AS counts) AS counts, CASE WHEN ((SELECT CASE WHEN (count(*) = 2::INTEGER)
THEN min(watches.confirmed_at) END AS anon_1
FROM watches) IS NOT NULL) THEN greatest((SELECT CASE WHEN (count(*) = 2::INTEGER) THEN min(watches.confirmed_at) END
AS anon_1
FROM watches), greatest((SELECT max(nodes.seen_at) AS max_1
FROM nodes), (SELECT max(nodes.gone_at) AS max_2
FROM nodes), (SELECT max(gpu_pods.seen_at) AS max_3
FROM gpu_pods), (SELECT max(leases.granted_at) AS max_4
FROM leases), (SELECT max(inbox.updated_at) AS max_5
FROM inbox))) END AS as_of, (SELECT CAST(coalesce(sum(calibrations.starts), 0::INTEGER) AS BIGINT) AS coalesce_10
FROM calibrations
WHERE calibrations.day > CURRENT_DATE - 30::INTEGER) AS starts, (SELECT CAST(coalesce(sum(calibrations.in_time),
0::INTEGER) AS BIGINT) AS coalesce_12
FROM calibrations
WHERE calibrations.day > CURRENT_DATE - 30::INTEGER) AS starts_in_time
