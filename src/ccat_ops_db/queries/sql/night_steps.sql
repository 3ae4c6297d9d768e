-- Where the sub-groups are that have packages of a night, by step; what holds them, alike where it differs in numbers only.
WITH tonight AS MATERIALIZED (
    SELECT DISTINCT m.sub_group_id AS id
    FROM executed_obs_unit e
    JOIN raw_data_package p ON p.executed_obs_unit_id = e.id
    JOIN sub_group_package m ON m.reduction_step_id = ANY(:steps) AND m.raw_data_package_id = p.id
    WHERE e.observing_night = :night AND NOT m.is_faded
), standing AS (
    SELECT g.id, g.reduction_step_id,
        CASE
            WHEN r.status = 'pending' THEN 'waiting'
            WHEN r.status = 'failed' THEN 'retried'
            WHEN r.status IS NOT NULL THEN 'running'
            WHEN g.verdict <> 'up_to_date' THEN g.verdict
            WHEN g.last_run_id IS NULL THEN 'wanted'
            ELSE 'reduced'
        END AS place,
        CASE
            WHEN r.status = 'failed' THEN r.failure
            WHEN r.status IS NOT NULL THEN r.waiting_for
            WHEN g.verdict = 'failed' THEN last.failure
            WHEN g.verdict = 'blocked' AND above.is_given_up THEN 'waits for what failed or was cancelled upstream'
            WHEN g.verdict = 'blocked' AND above.is_unready THEN 'waits for what is still to be made upstream'
        END AS because
    FROM tonight
    JOIN sub_group g ON g.id = tonight.id
    LEFT JOIN executed_reduction_step r ON r.id = g.active_run_id
    LEFT JOIN LATERAL (
        SELECT l.failure
        FROM executed_reduction_step l
        WHERE l.reduction_step_id = g.reduction_step_id AND l.sub_group_key = g.key AND NOT l.is_trial
          AND l.status = 'failed'
        ORDER BY l.id DESC LIMIT 1
    ) last ON g.verdict = 'failed'
    LEFT JOIN LATERAL (
        SELECT bool_or(a.is_given_up) AS is_given_up, bool_or(NOT a.is_ready) AS is_unready
        FROM reduction_step_revision s
        JOIN reduction_step_dependency d ON d.step_revision_id = s.id
        JOIN sub_group_package m ON m.sub_group_id = g.id AND NOT m.is_faded
        JOIN sub_group_package a
            ON a.reduction_step_id = d.upstream_step_id AND a.raw_data_package_id = m.raw_data_package_id
        WHERE s.id = ANY(:revisions) AND s.reduction_step_id = g.reduction_step_id AND NOT a.is_faded
    ) above ON g.verdict = 'blocked' AND r.id IS NULL
)
SELECT reduction_step_id, place, min(because) AS because, count(*) AS number,
    (array_agg(id ORDER BY id))[1:200] AS ids
FROM standing
GROUP BY reduction_step_id, place, regexp_replace(coalesce(because, ''), '[0-9]+', '#', 'g')
