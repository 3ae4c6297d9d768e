-- Scans of a night that are not done, each counted at the first thing that it lacks; `steps` are those that run by themselves.
-- Of `lost` packages, which were archived, no copy is left.
-- What somebody excluded or withdrew is to be archived all the same; it is not to be reduced.
-- Who evaluates is behind where a change was not looked at, or a whole pipeline; what comes now is looked at within a minute.
WITH ours AS (
    SELECT DISTINCT s.pipeline_id AS id, e.due_at IS NULL AS is_unseen
    FROM reduction_step s
    LEFT JOIN pipeline_evaluation e ON e.pipeline_id = s.pipeline_id
    WHERE s.id = ANY(:steps)
), behind AS MATERIALIZED (
    SELECT count(c.id) > 0 OR EXISTS (SELECT FROM ours WHERE is_unseen) AS is_so,
        coalesce(min(c.created_at) < now() - interval '1 minute', false)
            OR EXISTS (SELECT FROM ours WHERE is_unseen) AS is_stale
    FROM pending_change c
    WHERE EXISTS (SELECT FROM ours) AND (c.pipeline_id IS NULL OR c.pipeline_id IN (SELECT id FROM ours))
)
SELECT count(*) FILTER (WHERE goes_on) AS going_on,
    count(*) FILTER (WHERE NOT goes_on AND is_unarchived) AS unarchived,
    count(*) FILTER (WHERE NOT goes_on AND NOT is_unarchived AND is_unseen) AS unseen,
    count(*) FILTER (WHERE NOT goes_on AND NOT is_unarchived AND NOT is_unseen AND is_unreduced) AS unreduced,
    count(*) FILTER (WHERE NOT goes_on AND NOT is_unarchived AND NOT is_unseen AND is_untaken) AS untaken,
    (SELECT is_stale FROM behind) AS is_stale,
    count(*) AS scans
FROM (
    SELECT e.ended_at IS NULL AS goes_on,
        EXISTS (
            SELECT FROM raw_data_file f
            WHERE f.executed_obs_unit_id = e.id AND f.raw_data_package_id IS NULL AND f.lost_at IS NULL
        ) OR EXISTS (
            SELECT FROM raw_data_package p
            WHERE p.executed_obs_unit_id = e.id AND p.state <> 'archived'
        ) OR EXISTS (
            SELECT FROM raw_data_package p WHERE p.executed_obs_unit_id = e.id AND p.id = ANY(:lost)
        ) OR coalesce(e.expected_files, 0) > (SELECT count(*) FROM raw_data_file f WHERE f.executed_obs_unit_id = e.id)
        OR NOT EXISTS (SELECT FROM raw_data_file f WHERE f.executed_obs_unit_id = e.id)
          AND NOT EXISTS (SELECT FROM raw_data_package p WHERE p.executed_obs_unit_id = e.id) AS is_unarchived,
        behind.is_so AND own.untaken > 0 AS is_unseen,
        own.untaken = own.packages AND own.packages > 0 AS is_untaken,
        EXISTS (
            SELECT FROM raw_data_package p
            JOIN sub_group_package m ON m.reduction_step_id = ANY(:steps) AND m.raw_data_package_id = p.id
            JOIN sub_group g ON g.id = m.sub_group_id
            WHERE p.executed_obs_unit_id = e.id AND NOT m.is_faded
              AND (g.verdict <> 'up_to_date' OR g.last_run_id IS NULL OR g.active_run_id IS NOT NULL)
        ) AS is_unreduced
    FROM executed_obs_unit e
    CROSS JOIN behind
    CROSS JOIN LATERAL (
        SELECT count(*) AS packages,
            count(*) FILTER (WHERE NOT EXISTS (
                SELECT FROM sub_group_package m
                WHERE m.reduction_step_id = ANY(:steps) AND m.raw_data_package_id = p.id
            )) AS untaken
        FROM raw_data_package p
        WHERE p.executed_obs_unit_id = e.id AND p.excluded_at IS NULL AND p.withdrawn_at IS NULL
    ) own
    WHERE e.observing_night = :night
) scan
