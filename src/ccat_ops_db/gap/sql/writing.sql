-- What was found is noted where it differs: of each sub-group the verdict and its facts, and of its packages which ones
-- steps further down need not wait for, and for which they would wait in vain, as they were given up.
judged AS MATERIALIZED (
    SELECT d.id, d.last_run_id, d.active_run_id, d.input_digest, d.readiness, d.verdict, d.reason,
        CASE WHEN d.verdict IN ('wanted', 'blocked') THEN d.cut_off END AS cut_off,
        CASE WHEN d.verdict = 'cooling' THEN d.cut_off END AS due_at
    FROM decision d
),
differing AS MATERIALIZED (
    SELECT j.*,
        g.last_run_id IS DISTINCT FROM j.last_run_id AS is_passed_on,
        j.active_run_id IS NOT NULL AND (g.active_run_id, g.verdict, g.reason)
            IS DISTINCT FROM (j.active_run_id, j.verdict, j.reason) AS is_told
    FROM judged j JOIN sub_group g ON g.id = j.id
    WHERE (g.last_run_id, g.active_run_id, g.input_digest, g.readiness, g.verdict, g.reason, g.cut_off, g.due_at)
        IS DISTINCT FROM (
            j.last_run_id, j.active_run_id, j.input_digest, j.readiness, j.verdict, j.reason, j.cut_off, j.due_at)
),
written AS (
    UPDATE sub_group g
    SET last_run_id = d.last_run_id, active_run_id = d.active_run_id, input_digest = d.input_digest,
        readiness = d.readiness, verdict = d.verdict, reason = d.reason, cut_off = d.cut_off, due_at = d.due_at
    FROM differing d
    WHERE g.id = d.id
    RETURNING g.id, d.is_passed_on, d.is_told
),
covered AS MATERIALIZED (
    SELECT m.reduction_step_id, m.raw_data_package_id, m.is_ready AS was_ready, m.is_given_up AS was_given_up, j.verdict,
        CASE j.readiness
            WHEN 'all' THEN true
            WHEN 'none' THEN false
            ELSE EXISTS (SELECT FROM run_coverage c
                         WHERE c.run_id = j.last_run_id AND c.raw_data_package_id = m.raw_data_package_id)
        END
        AND (cardinality(:upstream) = 0 OR NOT EXISTS (
            SELECT FROM sub_group_package above
            WHERE above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
              AND NOT above.is_ready AND NOT above.is_faded)) AS is_ready
    FROM judged j JOIN sub_group_package m ON m.sub_group_id = j.id
    WHERE NOT m.is_faded
),
hopeful AS (
    SELECT c.*, NOT c.is_ready AND (
        c.verdict IN ('failed', 'cancelled') OR cardinality(:upstream) > 0 AND EXISTS (
            SELECT FROM sub_group_package above
            WHERE above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = c.raw_data_package_id
              AND above.is_given_up AND NOT above.is_ready AND NOT above.is_faded)) AS is_given_up
    FROM covered c
),
readied AS (
    UPDATE sub_group_package m SET is_ready = h.is_ready, is_given_up = h.is_given_up
    FROM hopeful h
    WHERE m.reduction_step_id = h.reduction_step_id AND m.raw_data_package_id = h.raw_data_package_id
      AND (h.was_ready, h.was_given_up) <> (h.is_ready, h.is_given_up)
    RETURNING m.sub_group_id
),
news AS (
    SELECT id, is_passed_on, is_told FROM written UNION ALL SELECT sub_group_id, true, false FROM readied
)
SELECT id, is_passed_on, is_told FROM news
