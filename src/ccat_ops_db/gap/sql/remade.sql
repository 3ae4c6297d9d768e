-- What is known of sub-groups of a step whose newest runs are to be repeated: with their version, if that is still
-- released, else with the one that the step uses now.
SELECT u.id, u.path, u.last_run_id, u.active_run_id,
    made.recipe_digest IS NOT NULL AS is_released, tried.id AS tried_id, tried.failure
FROM sub_group u
JOIN executed_reduction_step l ON l.id = u.last_run_id
JOIN reduction_software_version v ON v.id = l.software_version_id
CROSS JOIN LATERAL (
    SELECT CASE WHEN v.state = 'released' THEN l.recipe_digest ELSE :recipe END AS recipe_digest) made
LEFT JOIN LATERAL (
    SELECT r.id, CASE WHEN r.status = 'failed' THEN coalesce(r.failure, 'nobody knows why') END AS failure
    FROM executed_reduction_step r
    WHERE r.reduction_step_id = u.reduction_step_id AND r.sub_group_key = u.key AND r.id > l.id AND NOT r.is_trial
      AND r.recipe_digest = made.recipe_digest AND r.input_digest = l.input_digest AND NOT r.not_needed
      AND (r.status = 'cancelled' OR r.status = 'failed' AND r.retry_at IS NULL)
    ORDER BY r.id DESC LIMIT 1) tried ON true
WHERE u.id = ANY(:ids) AND u.reduction_step_id = :step
