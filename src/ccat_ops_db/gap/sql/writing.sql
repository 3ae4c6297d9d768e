-- What was found is noted where it differs: of each sub-group the verdict and its facts, and of its packages which ones
-- steps further down need not wait for, and for which they would wait in vain, as they were given up.
judged AS MATERIALIZED (
    SELECT d.id, d.last_run_id, d.active_run_id, d.input_digest, d.readiness, d.verdict, d.reason,
        CASE WHEN d.verdict IN ('wanted', 'blocked') THEN d.cut_off END AS cut_off,
        CASE WHEN d.verdict = 'cooling' THEN d.cut_off END AS due_at
    FROM decision d
    UNION ALL
    SELECT f.id, f.last_run_id, f.active_run_id, f.input_digest, 'all', 'up_to_date', NULL, NULL, NULL
    FROM fact f WHERE f.is_settled
),
written AS (
    UPDATE sub_group g
    SET last_run_id = j.last_run_id, active_run_id = j.active_run_id, input_digest = j.input_digest,
        readiness = j.readiness, verdict = j.verdict, reason = j.reason, cut_off = j.cut_off, due_at = j.due_at
    FROM judged j
    WHERE g.id = j.id
      AND (g.last_run_id, g.active_run_id, g.input_digest, g.readiness, g.verdict, g.reason, g.cut_off, g.due_at)
        IS DISTINCT FROM (
            j.last_run_id, j.active_run_id, j.input_digest, j.readiness, j.verdict, j.reason, j.cut_off, j.due_at)
    RETURNING g.id, old.last_run_id IS DISTINCT FROM new.last_run_id AS is_passed_on,
        new.active_run_id IS NOT NULL AND (old.active_run_id, old.verdict, old.reason)
            IS DISTINCT FROM (new.active_run_id, new.verdict, new.reason) AS is_told
),
-- Packages, and whether runs further up are missing that they have to be in.
standing AS MATERIALIZED (
    SELECT m.reduction_step_id, m.raw_data_package_id, m.is_ready, m.is_given_up, j.verdict, j.readiness, j.last_run_id,
        bool_and(above.is_ready IS NULL) AS is_ready_above, coalesce(bool_or(above.is_given_up), false) AS is_given_up_above
    FROM judged j
    JOIN sub_group_package m ON m.sub_group_id = j.id
    LEFT JOIN sub_group_package above
        ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
        AND NOT above.is_ready AND NOT above.is_faded
    WHERE NOT m.is_faded
    GROUP BY m.reduction_step_id, m.raw_data_package_id, j.verdict, j.readiness, j.last_run_id
),
covered AS MATERIALIZED (
    SELECT s.*, s.is_ready_above AND CASE s.readiness
        WHEN 'all' THEN true
        WHEN 'none' THEN false
        ELSE EXISTS (SELECT FROM run_coverage c
                     WHERE c.run_id = s.last_run_id AND c.raw_data_package_id = s.raw_data_package_id)
        END AS is_covered
    FROM standing s
),
readied AS (
    UPDATE sub_group_package m SET is_ready = c.is_covered, is_given_up = c.is_hopeless
    FROM (
        SELECT *, NOT is_covered AND (verdict IN ('failed', 'cancelled') OR is_given_up_above) AS is_hopeless FROM covered
    ) c
    WHERE m.reduction_step_id = c.reduction_step_id AND m.raw_data_package_id = c.raw_data_package_id
      AND (c.is_ready, c.is_given_up) <> (c.is_covered, c.is_hopeless)
    RETURNING m.sub_group_id
),
news AS (
    SELECT id, is_passed_on, is_told FROM written UNION ALL SELECT sub_group_id, true, false FROM readied
)
SELECT id, is_passed_on, is_told FROM news
