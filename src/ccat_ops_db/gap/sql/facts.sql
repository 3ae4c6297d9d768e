-- What is known of each sub-group of a step: its newest completed run, its active run, and the inputs that a run would
-- get now.
scope AS MATERIALIZED (
    SELECT g.id, g.key, g.only_auxiliary, g.lost_auxiliary, l.id AS last_run_id, l.created_at AS last_created_at,
        l.input_digest AS last_input_digest,
        CASE WHEN :by_series THEN l.series_digest = :series ELSE l.recipe_digest = :recipe END AS same_recipe,
        (SELECT r.id FROM executed_reduction_step r
         WHERE r.reduction_step_id = :step AND r.sub_group_key = g.key AND NOT r.is_trial
           AND (r.status IN ('pending', 'staging_data', 'submitted', 'running', 'collecting_results')
                OR (r.status = 'failed' AND r.retry_at IS NOT NULL))) AS active_run_id
    FROM sub_group g
    LEFT JOIN LATERAL (
        SELECT r.* FROM executed_reduction_step r
        WHERE r.reduction_step_id = :step AND r.sub_group_key = g.key AND NOT r.is_trial AND r.status = 'completed'
        ORDER BY r.id DESC LIMIT 1
    ) l ON true
    WHERE g.reduction_step_id = :step AND {scope}
),
raw AS (
    SELECT m.sub_group_id, 'raw' AS role, '' AS step_key, '' AS sub_group_key, p.name AS path, p.checksum,
        '["raw","",""' AS place, m.excluded_pixels
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
    WHERE cardinality(:upstream) > 0 AND NOT m.is_faded AND m.left_out IS NULL AND NOT above.is_faded
),
product AS (
    SELECT e.sub_group_id, 'upstream' AS role, step.key AS step_key, u.key AS sub_group_key,
        d.relative_path AS path, d.checksum,
        '["upstream",' || to_json(step.key)::text || ',' || to_json(u.key)::text AS place, NULL::text[] AS excluded_pixels
    FROM edge e
    JOIN sub_group u ON u.id = e.upstream_id
    JOIN reduction_step step ON step.id = u.reduction_step_id
    JOIN data_product d ON d.run_id = u.last_run_id
    WHERE d.state IN ('current', 'superseded') AND d.type <> ALL(:unlisted)
),
auxiliary AS (
    SELECT s.id AS sub_group_id, 'auxiliary' AS role, giver.step_key, r.sub_group_key, d.relative_path AS path, d.checksum,
        '["auxiliary",' || to_json(giver.step_key)::text || ',' || to_json(r.sub_group_key)::text AS place,
        NULL::text[] AS excluded_pixels
    FROM scope s
    JOIN auxiliary_choice a ON a.sub_group_id = s.id
    JOIN data_product d ON d.id = a.data_product_id
    JOIN executed_reduction_step r ON r.id = d.run_id
    JOIN reduction_step step ON step.id = r.reduction_step_id
    JOIN pipeline p ON p.id = step.pipeline_id
    CROSS JOIN LATERAL (SELECT a.name || '=' || p.name || '/' || step.key AS step_key) giver
    WHERE :has_rules
),
input AS (
    SELECT * FROM raw UNION ALL SELECT * FROM product UNION ALL SELECT * FROM auxiliary
),
digest AS (
    SELECT i.sub_group_id, 'sha256:' || encode(sha256(convert_to('[' || string_agg(
            i.place || ',' || to_json(i.path)::text || ',"' || i.checksum || '"'
                || coalesce(',' || to_json(i.excluded_pixels)::text, '') || ']',
            ',' ORDER BY i.role, i.step_key COLLATE "C", i.sub_group_key COLLATE "C", i.path COLLATE "C", i.checksum
        ) || ']', 'UTF8')), 'hex') AS input_digest
    FROM input i
    GROUP BY i.sub_group_id
),
-- Sub-groups with packages for which runs further up are missing, and since when the first of these is in the archive.
held AS MATERIALIZED (
    SELECT m.sub_group_id, min(m.archived_at) AS since
    FROM scope s
    JOIN sub_group_package m ON m.sub_group_id = s.id
    JOIN sub_group_package above
        ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
    WHERE cardinality(:upstream) > 0 AND NOT m.is_faded AND m.left_out IS NULL AND NOT above.is_ready AND NOT above.is_faded
    GROUP BY m.sub_group_id
),
known AS (
    SELECT s.id, s.key, s.only_auxiliary, s.lost_auxiliary, s.last_run_id, s.last_created_at, s.same_recipe, s.active_run_id,
        coalesce(d.input_digest, :no_inputs) AS input_digest,
        s.last_input_digest = coalesce(d.input_digest, :no_inputs) AS same_inputs,
        greatest(q.created_at, w.created_at) AS requested_at,
        coalesce(q.is_forced, false) OR coalesce(w.is_forced, false) AS is_forced, h.since AS held_since,
        s.last_run_id IS NOT NULL AND (
            EXISTS (SELECT FROM data_product d WHERE d.run_id = s.last_run_id AND d.state IN ('orphaned', 'withdrawn'))
            OR s.last_run_id IN (
                SELECT d.run_id FROM physical_copy c JOIN data_product d ON d.id = c.data_product_id
                WHERE c.data_product_id IS NOT NULL AND c.status IN ('corrupt', 'missing')
                  AND NOT EXISTS (
                    SELECT FROM physical_copy sound WHERE sound.data_product_id = c.data_product_id
                      AND sound.{sound}))
        ) AS is_damaged,
        NOT :fades OR EXISTS (SELECT FROM sub_group_package m WHERE m.sub_group_id = s.id AND NOT m.is_faded) AS is_there
    FROM scope s
    LEFT JOIN digest d ON d.sub_group_id = s.id
    LEFT JOIN run_request q ON q.reduction_step_id = :step AND q.sub_group_key = s.key AND q.run_id IS NULL
    LEFT JOIN run_request w ON w.run_id = s.active_run_id
    LEFT JOIN held h ON h.sub_group_id = s.id
    OFFSET 0  -- what is found is not looked for twice
),
-- Most are settled: nothing is otherwise than for the newest run, and nothing is to come.
fact AS MATERIALIZED (
    SELECT k.*, coalesce(k.is_there AND k.same_recipe AND k.same_inputs AND NOT k.is_damaged AND NOT k.is_forced
        AND k.held_since IS NULL AND NOT :takes_available AND k.input_digest <> :no_inputs, false) AS is_settled
    FROM known k
)
