-- What is known of each sub-group of a step: its newest completed run, its active run, and the inputs that a run would
-- get now. Only what differs is written.
WITH scope AS MATERIALIZED (
    SELECT g.id, g.key,
        (SELECT r.id FROM executed_reduction_step r
         WHERE r.reduction_step_id = :step AND r.sub_group_key = g.key AND NOT r.is_trial AND r.status = 'completed'
         ORDER BY r.id DESC LIMIT 1) AS last_run_id,
        (SELECT r.id FROM executed_reduction_step r
         WHERE r.reduction_step_id = :step AND r.sub_group_key = g.key AND NOT r.is_trial
           AND (r.status IN ('pending', 'staging_data', 'submitted', 'running', 'collecting_results')
                OR (r.status = 'failed' AND r.retry_at IS NOT NULL))) AS active_run_id
    FROM sub_group g
    WHERE g.reduction_step_id = :step AND {scope}
),
raw AS (
    SELECT m.sub_group_id, 'raw' AS role, '' AS step_key, '' AS sub_group_key, p.name AS path, p.checksum
    FROM scope s
    JOIN sub_group_package m ON m.sub_group_id = s.id
    JOIN raw_data_package p ON p.id = m.raw_data_package_id
    WHERE :takes_raw AND NOT m.is_faded AND m.left_out IS NULL
),
edge AS (
    SELECT DISTINCT m.sub_group_id, above.sub_group_id AS upstream_id
    FROM scope s
    JOIN sub_group_package m ON m.sub_group_id = s.id
    JOIN sub_group_package above
        ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
    WHERE NOT m.is_faded AND m.left_out IS NULL AND NOT above.is_faded
),
product AS (
    SELECT e.sub_group_id, 'upstream' AS role, step.key AS step_key, u.key AS sub_group_key,
        d.relative_path AS path, d.checksum
    FROM edge e
    JOIN sub_group u ON u.id = e.upstream_id
    JOIN reduction_step step ON step.id = u.reduction_step_id
    JOIN data_product d ON d.run_id = u.last_run_id
    WHERE d.state IN ('current', 'superseded') AND d.type NOT IN ('log', 'plot', 'statistics')
),
auxiliary AS (
    SELECT s.id AS sub_group_id, 'auxiliary' AS role, a.name || '=' || p.name || '/' || step.key AS step_key,
        r.sub_group_key, d.relative_path AS path, d.checksum
    FROM scope s
    JOIN auxiliary_choice a ON a.sub_group_id = s.id
    JOIN data_product d ON d.id = a.data_product_id
    JOIN executed_reduction_step r ON r.id = d.run_id
    JOIN reduction_step step ON step.id = r.reduction_step_id
    JOIN pipeline p ON p.id = step.pipeline_id
    WHERE :has_rules
),
input AS (
    SELECT * FROM raw UNION ALL SELECT * FROM product UNION ALL SELECT * FROM auxiliary
),
digest AS (
    SELECT i.sub_group_id, 'sha256:' || encode(sha256(convert_to('[' || string_agg(
            '["' || i.role || '",' || to_json(i.step_key)::text || ',' || to_json(i.sub_group_key)::text || ','
            || to_json(i.path)::text || ',"' || i.checksum || '"]',
            ',' ORDER BY i.role, i.step_key COLLATE "C", i.sub_group_key COLLATE "C", i.path COLLATE "C", i.checksum
        ) || ']', 'UTF8')), 'hex') AS input_digest
    FROM input i
    GROUP BY i.sub_group_id
)
UPDATE sub_group g
SET last_run_id = s.last_run_id,
    active_run_id = s.active_run_id,
    input_digest = coalesce(d.input_digest, :no_inputs)
FROM scope s LEFT JOIN digest d ON d.sub_group_id = s.id
WHERE g.id = s.id
  AND (g.last_run_id, g.active_run_id, g.input_digest)
      IS DISTINCT FROM (s.last_run_id, s.active_run_id, coalesce(d.input_digest, :no_inputs))
RETURNING g.id
