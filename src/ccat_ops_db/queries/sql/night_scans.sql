-- Scans of a night that are not done, each counted at the first thing that it lacks; `steps` are those that run by themselves.
SELECT count(*) FILTER (WHERE goes_on) AS going_on,
    count(*) FILTER (WHERE NOT goes_on AND is_unarchived) AS unarchived,
    count(*) FILTER (WHERE NOT goes_on AND NOT is_unarchived AND is_unreduced) AS unreduced,
    count(*) AS scans
FROM (
    SELECT e.ended_at IS NULL AS goes_on,
        EXISTS (
            SELECT FROM raw_data_file f WHERE f.executed_obs_unit_id = e.id AND f.raw_data_package_id IS NULL
        ) OR EXISTS (
            SELECT FROM raw_data_package p
            WHERE p.executed_obs_unit_id = e.id AND p.state <> 'archived'
              AND p.excluded_at IS NULL AND p.withdrawn_at IS NULL
        ) OR NOT EXISTS (SELECT FROM raw_data_file f WHERE f.executed_obs_unit_id = e.id)
          AND NOT EXISTS (SELECT FROM raw_data_package p WHERE p.executed_obs_unit_id = e.id) AS is_unarchived,
        EXISTS (
            SELECT FROM raw_data_package p
            JOIN sub_group_package m ON m.reduction_step_id = ANY(:steps) AND m.raw_data_package_id = p.id
            JOIN sub_group g ON g.id = m.sub_group_id
            WHERE p.executed_obs_unit_id = e.id AND NOT m.is_faded
              AND (g.verdict <> 'up_to_date' OR g.last_run_id IS NULL OR g.active_run_id IS NOT NULL)
        ) AS is_unreduced
    FROM executed_obs_unit e
    WHERE e.observing_night = :night
) scan
