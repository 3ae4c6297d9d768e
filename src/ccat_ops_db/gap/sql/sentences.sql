-- What the reasons of some sub-groups of a step are told with: at most three names of each kind, and how many there are.
WITH scope AS (
    SELECT g.* FROM sub_group g WHERE g.reduction_step_id = :step AND g.id = ANY(:ids)
)
SELECT s.id, s.path, s.verdict, s.reason, s.cut_off, s.due_at, s.last_run_id, v.version, v.series,
    fresh.names AS new, coalesce(fresh.number, 0) AS new_number,
    excluded.names AS excluded, coalesce(excluded.number, 0) AS excluded_number,
    pixels.names AS pixels, coalesce(pixels.number, 0) AS pixels_number,
    newer.names AS newer, coalesce(newer.number, 0) AS newer_number,
    damaged.names AS damaged, coalesce(damaged.number, 0) AS damaged_number, withdrawn.because AS withdrawn_because,
    waits.names AS waits, coalesce(waits.number, 0) AS waits_number,
    taken.number AS taken, taken.left_out, taken.in_time, taken.in_time_ready,
    scan.id AS scan_id, scan.goes_on, scan.lacking, scan.unpacked, scan.pending, scan.pending_number, scan.has_failed,
    coalesce(waits.is_given_up, false) AS is_given_up,
    abandoned.id AS abandoned_id, abandoned.failure
FROM scope s
LEFT JOIN executed_reduction_step l ON l.id = s.last_run_id
LEFT JOIN reduction_software_version v ON v.id = l.software_version_id
LEFT JOIN LATERAL (
    SELECT (array_agg(p.name ORDER BY p.id))[1:3] AS names, count(*) AS number
    FROM sub_group_package m JOIN raw_data_package p ON p.id = m.raw_data_package_id
    WHERE m.sub_group_id = s.id AND NOT m.is_faded AND m.left_out IS NULL AND NOT EXISTS (
        SELECT FROM run_coverage c WHERE c.run_id = s.last_run_id AND c.raw_data_package_id = m.raw_data_package_id)
) fresh ON s.reason = 'inputs_changed'
LEFT JOIN LATERAL (
    SELECT (array_agg(p.name || ': ' || p.excluded_because ORDER BY p.id))[1:3] AS names, count(*) AS number
    FROM run_coverage c JOIN raw_data_package p ON p.id = c.raw_data_package_id
    WHERE c.run_id = s.last_run_id AND NOT c.is_excess AND p.excluded_at IS NOT NULL
) excluded ON s.reason = 'inputs_changed'
LEFT JOIN LATERAL (
    SELECT (array_agg(p.name || ': ' || coalesce(array_to_string(m.excluded_pixels, ', '), 'none') ORDER BY p.id))[1:3]
            AS names, count(*) AS number
    FROM sub_group_package m
    JOIN run_input i ON i.run_id = s.last_run_id AND i.raw_data_package_id = m.raw_data_package_id
    JOIN raw_data_package p ON p.id = m.raw_data_package_id
    WHERE m.sub_group_id = s.id AND NOT m.is_faded AND m.left_out IS NULL
      AND m.excluded_pixels IS DISTINCT FROM i.excluded_pixels
) pixels ON s.reason = 'inputs_changed'
LEFT JOIN LATERAL (
    SELECT (array_agg(u.name ORDER BY u.name COLLATE "C"))[1:3] AS names, count(*) AS number
    FROM (
        SELECT DISTINCT step.key || ' ' || u.path AS name
        FROM sub_group_package m
        JOIN sub_group_package above
            ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
        JOIN sub_group u ON u.id = above.sub_group_id
        JOIN reduction_step step ON step.id = u.reduction_step_id
        JOIN executed_reduction_step made ON made.id = u.last_run_id
        WHERE m.sub_group_id = s.id AND NOT m.is_faded AND m.left_out IS NULL AND NOT above.is_faded
          AND made.made_digest IS NOT NULL
          AND NOT EXISTS (
            SELECT FROM run_input i JOIN data_product d ON d.id = i.data_product_id
            JOIN executed_reduction_step maker ON maker.id = d.run_id
            WHERE i.run_id = s.last_run_id AND maker.made_digest = made.made_digest)
    ) u
) newer ON s.reason = 'upstream_changed'
LEFT JOIN LATERAL (
    SELECT (array_agg(d.relative_path ORDER BY d.id))[1:3] AS names, count(*) AS number
    FROM data_product d
    WHERE d.run_id = s.last_run_id AND (
        d.state IN ('orphaned', 'withdrawn')
        OR EXISTS (SELECT FROM physical_copy c WHERE c.data_product_id = d.id AND c.status IN ('corrupt', 'missing'))
        AND NOT EXISTS (
            SELECT FROM physical_copy sound WHERE sound.data_product_id = d.id
              AND sound.{sound}))
) damaged ON s.reason = 'invalidated'
LEFT JOIN LATERAL (
    SELECT w.what || ' was withdrawn: ' || w.because AS because
    FROM data_product d
    JOIN withdrawn_product marked ON marked.data_product_id = d.id
    JOIN withdrawal w ON w.id = marked.withdrawal_id
    WHERE d.run_id = s.last_run_id AND d.state = 'withdrawn' AND w.reinstated_at IS NULL
    ORDER BY w.id LIMIT 1
) withdrawn ON s.reason = 'invalidated'
LEFT JOIN LATERAL (
    SELECT (array_agg(u.name ORDER BY u.step_key COLLATE "C", u.key COLLATE "C"))[1:3] AS names, count(*) AS number,
        bool_or(u.is_given_up) AS is_given_up
    FROM (
        SELECT step.key AS step_key, u.key,
            bool_or(above.is_given_up AND m.left_out IS DISTINCT FROM 'omitted') AS is_given_up,
            step.key || ' ' || u.path || ' (' || CASE
                WHEN u.active_run_id IS NOT NULL THEN 'running'
                WHEN u.verdict = 'up_to_date' THEN 'incomplete'
                ELSE replace(u.verdict, '_', ' ') END || ')' AS name
        FROM sub_group_package m
        JOIN sub_group_package above
            ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
        JOIN sub_group u ON u.id = above.sub_group_id
        JOIN reduction_step step ON step.id = u.reduction_step_id
        WHERE m.sub_group_id = s.id AND NOT m.is_faded AND NOT above.is_faded AND NOT above.is_ready
          AND (s.cut_off IS NULL OR m.archived_at <= s.cut_off)
          AND (m.left_out IS DISTINCT FROM 'omitted' OR s.input_digest = :no_inputs)
        GROUP BY step.key, u.id
    ) u
) waits ON s.verdict = 'blocked'
LEFT JOIN LATERAL (
    SELECT count(*) AS number, count(*) FILTER (WHERE m.left_out IS NOT NULL) AS left_out,
        count(*) FILTER (WHERE m.left_out IS DISTINCT FROM 'omitted' AND in_time) AS in_time,
        count(*) FILTER (WHERE m.left_out IS NULL AND in_time) AS in_time_ready
    FROM sub_group_package m, LATERAL (SELECT s.cut_off IS NULL OR m.archived_at <= s.cut_off AS in_time) AS moment
    WHERE m.sub_group_id = s.id AND NOT m.is_faded
      AND EXISTS (SELECT FROM sub_group_package o WHERE o.reduction_step_id = :step AND o.left_out IS NOT NULL)
) taken ON true
-- All packages of a sub-group that waits for its scan are of that one scan.
LEFT JOIN LATERAL (
    SELECT e.id, e.ended_at IS NULL AND NOT accepted.is_so AS goes_on,
        CASE WHEN accepted.is_so THEN 0 ELSE file.unpacked END AS unpacked,
        CASE WHEN accepted.is_so THEN 0 ELSE greatest(coalesce(e.expected_files, 0) - file.number, 0) END AS lacking,
        other.names AS pending, other.number AS pending_number, other.has_failed
    FROM executed_obs_unit e,
        LATERAL (
            SELECT EXISTS (SELECT FROM accepted_coverage a
                           WHERE a.reduction_step_id = :step AND a.sub_group_key = s.key) AS is_so
        ) accepted,
        LATERAL (
            SELECT count(*) AS number, count(*) FILTER (WHERE f.raw_data_package_id IS NULL AND f.lost_at IS NULL) AS unpacked
            FROM raw_data_file f WHERE f.executed_obs_unit_id = e.id
        ) file,
        LATERAL (
            SELECT (array_agg(p.name || ' (' || p.state || ')' ORDER BY p.id))[1:3] AS names, count(*) AS number,
                coalesce(bool_or(p.state = 'failed'), false) AS has_failed
            FROM raw_data_package p
            WHERE p.executed_obs_unit_id = e.id AND p.state <> 'archived'
              AND p.excluded_at IS NULL AND p.withdrawn_at IS NULL
              AND NOT EXISTS (
                SELECT FROM accepted_coverage a JOIN accepted_package taken ON taken.accepted_coverage_id = a.id
                WHERE a.reduction_step_id = :step AND a.sub_group_key = s.key AND taken.raw_data_package_id = p.id)
        ) other
    WHERE :for_scan AND s.verdict = 'blocked' AND s.reason IS NOT NULL AND e.id = (
        SELECT p.executed_obs_unit_id
        FROM sub_group_package m JOIN raw_data_package p ON p.id = m.raw_data_package_id
        WHERE m.sub_group_id = s.id AND NOT m.is_faded LIMIT 1)
) scan ON true
LEFT JOIN LATERAL (
    SELECT r.id, r.failure FROM executed_reduction_step r
    WHERE r.reduction_step_id = :step AND r.sub_group_key = s.key AND NOT r.is_trial
      AND r.recipe_digest = :recipe AND r.input_digest = s.input_digest
      AND NOT r.not_needed AND (r.status = 'failed' AND r.retry_at IS NULL OR r.status = 'cancelled')
    ORDER BY r.id DESC LIMIT 1
) abandoned ON s.verdict IN ('failed', 'cancelled')
ORDER BY s.id
