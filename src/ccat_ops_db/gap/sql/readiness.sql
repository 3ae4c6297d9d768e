-- Which packages steps further down need not wait for, of each sub-group of a step, and for which they would wait in
-- vain, as they were given up. Only what differs is written.
WITH covered AS MATERIALIZED (
    SELECT m.reduction_step_id, m.raw_data_package_id, g.verdict,
        CASE g.readiness
            WHEN 'all' THEN true
            WHEN 'none' THEN false
            ELSE EXISTS (SELECT FROM run_coverage c
                         WHERE c.run_id = g.last_run_id AND c.raw_data_package_id = m.raw_data_package_id)
        END
        AND (cardinality(:upstream) = 0 OR NOT EXISTS (
            SELECT FROM sub_group_package above
            WHERE above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
              AND NOT above.is_ready AND NOT above.is_faded)) AS is_ready
    FROM sub_group g JOIN sub_group_package m ON m.sub_group_id = g.id
    WHERE g.reduction_step_id = :step AND {scope} AND NOT m.is_faded
),
wanted AS (
    SELECT c.*, NOT c.is_ready AND (
        c.verdict IN ('failed', 'cancelled') OR EXISTS (
            SELECT FROM sub_group_package above
            WHERE above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = c.raw_data_package_id
              AND above.is_given_up AND NOT above.is_ready AND NOT above.is_faded)) AS is_given_up
    FROM covered c
)
UPDATE sub_group_package m SET is_ready = w.is_ready, is_given_up = w.is_given_up
FROM wanted w
WHERE m.reduction_step_id = w.reduction_step_id AND m.raw_data_package_id = w.raw_data_package_id
  AND (m.is_ready, m.is_given_up) <> (w.is_ready, w.is_given_up)
RETURNING m.sub_group_id
