-- What the last runs of each step used, by version of its software, beside what the step asks for now. Of each version
-- the runs are read whose inputs were frozen last, by an index, so that it does not matter how many others there are.
WITH revision AS (
    SELECT DISTINCT ON (r.pipeline_id) r.id, p.name AS pipeline
    FROM pipeline_revision r
    JOIN pipeline p ON p.id = r.pipeline_id
    WHERE CAST(:pipeline AS text) IS NULL OR p.name = :pipeline
    ORDER BY r.pipeline_id, r.number DESC
), step AS (
    SELECT s.reduction_step_id AS id, s.reduction_software_id, s.position, s.resources, revision.pipeline, i.key AS step
    FROM revision
    JOIN reduction_step_revision s ON s.pipeline_revision_id = revision.id
    JOIN reduction_step i ON i.id = s.reduction_step_id
), used AS (
    SELECT step.id, v.id AS version_id, v.version,
        row_number() OVER (PARTITION BY step.id ORDER BY newest.at DESC, v.id DESC) AS place
    FROM step
    JOIN reduction_software_version v ON v.reduction_software_id = step.reduction_software_id
    CROSS JOIN LATERAL (
        SELECT r.inputs_frozen_at AS at
        FROM executed_reduction_step r
        WHERE r.software_version_id = v.id AND r.reduction_step_id = step.id AND r.inputs_frozen_at IS NOT NULL
          AND NOT r.is_trial
        ORDER BY r.inputs_frozen_at DESC LIMIT 1
    ) newest
)
SELECT step.pipeline, step.step, step.resources, used.version, used.place, measured.*
FROM step
LEFT JOIN used ON used.id = step.id AND used.place <= :versions
LEFT JOIN LATERAL (
    SELECT count(*) AS attempts,
        count(memory_gb) FILTER (WHERE succeeded) AS memory_known,
        percentile_disc(0.95) WITHIN GROUP (ORDER BY memory_gb) FILTER (WHERE succeeded) AS memory_usual,
        max(memory_gb) FILTER (WHERE succeeded) AS memory_most,
        count(*) FILTER (WHERE exhausted = 'memory') AS memory_ran_out,
        max(had_memory_gb) FILTER (WHERE exhausted = 'memory') AS memory_ran_out_at,
        count(time_hours) FILTER (WHERE succeeded) AS time_known,
        percentile_disc(0.95) WITHIN GROUP (ORDER BY time_hours) FILTER (WHERE succeeded) AS time_usual,
        max(time_hours) FILTER (WHERE succeeded) AS time_most,
        count(*) FILTER (WHERE exhausted = 'time') AS time_ran_out,
        max(had_time_hours) FILTER (WHERE exhausted = 'time') AS time_ran_out_at,
        count(busy) FILTER (WHERE succeeded) AS cpu_known,
        percentile_disc(0.95) WITHIN GROUP (ORDER BY busy) FILTER (WHERE succeeded) AS cpu_usual,
        max(busy) FILTER (WHERE succeeded) AS cpu_most,
        sum(busy * time_hours) FILTER (WHERE succeeded)
            / nullif(sum(had_cpus * time_hours) FILTER (WHERE succeeded AND busy IS NOT NULL), 0) AS cpu_efficiency
    FROM (
        SELECT a.exhausted, a.exhausted IS NULL AS succeeded,
            CAST(a.peak_memory_bytes AS double precision) / 1e9 AS memory_gb,
            a.wall_time_s / 3600 AS time_hours,
            CASE WHEN a.wall_time_s >= 1 THEN a.cpu_time_s / a.wall_time_s END AS busy,  -- of a moment it says nothing
            coalesce(a.memory_gb, CAST(asked.resources ->> 'memory_gb' AS double precision)) AS had_memory_gb,
            coalesce(a.time_hours, CAST(asked.resources ->> 'time_hours' AS double precision)) AS had_time_hours,
            CAST(asked.resources ->> 'cpu' AS integer)
                * coalesce(CAST(asked.resources ->> 'ntasks' AS integer), 1) AS had_cpus
        FROM (
            SELECT r.id, r.step_revision_id
            FROM executed_reduction_step r
            WHERE r.software_version_id = used.version_id AND r.reduction_step_id = used.id
              AND r.inputs_frozen_at IS NOT NULL AND NOT r.is_trial
            ORDER BY r.inputs_frozen_at DESC LIMIT :runs
        ) recent
        JOIN run_attempt a ON a.run_id = recent.id
        JOIN reduction_step_revision asked ON asked.id = recent.step_revision_id
        WHERE a.exhausted IS NOT NULL OR (a.exit_code = 0 AND a.failure_class IS NULL)
    ) attempt
) measured ON used.id IS NOT NULL
ORDER BY step.pipeline, step.position, used.place
