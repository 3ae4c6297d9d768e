-- Copies of products outside of archives.
-- Products that are brought from one location to another: any copy may be what is read.
fetched AS MATERIALIZED (
    SELECT DISTINCT j.data_product_id
    FROM staging_job j WHERE j.data_product_id IS NOT NULL AND j.status IN ('pending', 'scheduled', 'in_progress')
),
-- Steps of enabled pipelines, as they are now, and where they take from.
enabled AS MATERIALIZED (
    SELECT s.id, s.reduction_step_id, s.listed_types
    FROM (SELECT DISTINCT ON (n.pipeline_id) n.id, n.pipeline_id FROM pipeline_revision n
          ORDER BY n.pipeline_id, n.number DESC) newest
    JOIN pipeline l ON l.id = newest.pipeline_id AND l.enabled
    JOIN reduction_step_revision s ON s.pipeline_revision_id = newest.id
),
taker AS MATERIALIZED (
    SELECT edge.upstream_step_id, e.reduction_step_id, e.listed_types
    FROM reduction_step_dependency edge JOIN enabled e ON e.id = edge.step_revision_id
),
calibrator AS MATERIALIZED (
    SELECT DISTINCT a.from_step_id AS id FROM auxiliary_rule a JOIN enabled e ON e.id = a.step_revision_id
),
calibration AS MATERIALIZED (
    SELECT DISTINCT a.data_product_id AS id
    FROM auxiliary_choice a JOIN enabled e ON e.reduction_step_id = a.reduction_step_id
),
term AS MATERIALIZED (
    SELECT DISTINCT ON (s.reduction_step_id) s.reduction_step_id,
        coalesce(s.retention_days, CASE WHEN NOT s.is_final THEN :intermediate_days END) AS days, s.recompute
    FROM reduction_step_revision s ORDER BY s.reduction_step_id, s.id DESC
),
-- Runs whose products some step would take now, with the types that it takes because it lists them; and whether some run
-- of it is to come.
wanted AS MATERIALIZED (
    SELECT r.id AS run_id, string_agg(DISTINCT taker.listed_types::text, ' ') AS listed_types,
        bool_or(g.verdict IN ('wanted', 'cooling', 'blocked') OR g.active_run_id IS NOT NULL) AS is_awaited
    FROM physical_copy c
    JOIN data_product d ON d.id = c.data_product_id
    JOIN executed_reduction_step r ON r.id = d.run_id
    JOIN taker ON taker.upstream_step_id = r.reduction_step_id
    JOIN sub_group u ON u.reduction_step_id = r.reduction_step_id AND u.key = r.sub_group_key
        AND coalesce(u.last_run_id, 0) <= r.id  -- what was made just now is not evaluated yet
    JOIN sub_group_package above ON above.sub_group_id = u.id AND NOT above.is_faded
    JOIN sub_group_package m ON m.reduction_step_id = taker.reduction_step_id
        AND m.raw_data_package_id = above.raw_data_package_id AND NOT m.is_faded
    JOIN sub_group g ON g.id = m.sub_group_id
    WHERE c.data_product_id IS NOT NULL AND c.status <> 'deleted' AND {scope}
    GROUP BY r.id
),
-- Sub-groups that active runs take something of: where it was deleted, they take what was made again.
awaited AS MATERIALIZED (
    SELECT DISTINCT r.reduction_step_id, r.sub_group_key
    FROM taken t JOIN data_product d ON d.id = t.data_product_id
    JOIN executed_reduction_step r ON r.id = d.run_id
    JOIN term ON term.reduction_step_id = r.reduction_step_id AND term.recompute
),
-- Runs whose products are on their way into an archive, or stopped there; where these are, and what comes next.
leaving AS MATERIALIZED (
    SELECT k.run_id, unnest(ARRAY[k.origin_id, k.next_id]) AS data_location_id
    FROM product_archive_transfer k WHERE k.status IN ('pending', 'scheduled', 'in_progress')
    UNION
    SELECT k.run_id, unnest(ARRAY[k.origin_id, k.next_id])
    FROM product_archive_transfer k WHERE k.status = 'failed'
),
-- How many verified copies there are of a product: of those that are to be archived the database keeps the last one.
verified AS MATERIALIZED (
    SELECT a.data_product_id, count(*) AS copies
    FROM physical_copy a
    JOIN data_location l ON l.id = a.data_location_id AND l.lost_at IS NULL
    WHERE a.data_product_id IS NOT NULL AND a.status = 'present' AND a.verified_at IS NOT NULL AND {products}
    GROUP BY a.data_product_id
),
product AS MATERIALIZED (
    SELECT c.id, c.data_location_id, place.location_type, place.days, r.data_location_id = c.data_location_id AS is_home,
        coalesce(c.used_at, c.verified_at, c.created_at) AS used_at, d.id AS product_id, d.type, d.state, d.size_bytes,
        d.created_at, r.id AS run_id, r.reduction_step_id, r.sub_group_key, r.is_trial, r.expires_at, r.software_version_id,
        t.data_product_id IS NOT NULL AS is_in_use, f.data_product_id IS NOT NULL AS is_fetched,
        d.state = 'current' AND s.archive
            AND coalesce(o.copies, 0) - (c.status = 'present' AND c.verified_at IS NOT NULL)::int < 1 AS is_last
    FROM physical_copy c
    JOIN place ON place.id = c.data_location_id AND place.location_type <> 'long_term_archive'
    JOIN data_product d ON d.id = c.data_product_id
    JOIN executed_reduction_step r ON r.id = d.run_id
    JOIN reduction_step_revision s ON s.id = r.step_revision_id
    LEFT JOIN taken t ON t.data_location_id = c.data_location_id AND t.data_product_id = d.id
    LEFT JOIN fetched f ON f.data_product_id = d.id
    LEFT JOIN verified o ON o.data_product_id = d.id
    WHERE c.data_product_id IS NOT NULL AND c.status IN ({statuses}) AND {scope}
),
product_copy AS (
    -- Where they were made.
    SELECT c.id, c.data_location_id, CASE WHEN again.is_made THEN 'recomputable' ELSE 'product' END AS kind, c.size_bytes,
        c.created_at AS since,
        CASE WHEN c.is_trial THEN c.expires_at ELSE c.created_at + term.days * interval '1 day' END AS due_at,
        again.is_made AS is_needed_soon,  -- to make it again costs more than to stage something again
        CASE
            WHEN c.is_last THEN 'last_sound_copy'
            WHEN c.state IN ('current', 'superseded') AND EXISTS (
                SELECT FROM physical_copy bad
                WHERE bad.data_product_id = c.product_id AND bad.id <> c.id AND bad.status IN ('corrupt', 'missing'))
              AND NOT EXISTS (
                SELECT FROM physical_copy sound
                JOIN data_location l ON l.id = sound.data_location_id AND l.lost_at IS NULL
                WHERE sound.data_product_id = c.product_id AND sound.id <> c.id AND sound.status = 'present')
                THEN 'last_sound_copy'
            WHEN c.is_in_use THEN 'in_use'
            WHEN c.is_fetched OR c.run_id IN (SELECT k.run_id FROM leaving k) THEN 'being_read'
            WHEN c.state NOT IN ('current', 'superseded') THEN NULL
            WHEN again.is_made AND (w.is_awaited OR a.sub_group_key IS NOT NULL) THEN 'awaited'
            WHEN again.is_taken AND NOT again.is_made THEN 'wanted'
            WHEN g.id IS NOT NULL AND c.type = ANY(:inputs) AND (c.state = 'current' OR n.id IS NOT NULL) THEN 'wanted'
        END AS obstacle
    FROM product c
    JOIN reduction_software_version v ON v.id = c.software_version_id
    LEFT JOIN term ON term.reduction_step_id = c.reduction_step_id
    LEFT JOIN wanted w ON w.run_id = c.run_id
    LEFT JOIN calibrator g ON g.id = c.reduction_step_id
    LEFT JOIN calibration n ON n.id = c.product_id
    LEFT JOIN awaited a ON a.reduction_step_id = c.reduction_step_id AND a.sub_group_key = c.sub_group_key
    CROSS JOIN LATERAL (
        SELECT w.run_id IS NOT NULL AND (
            c.type = ANY(:inputs) OR strpos(w.listed_types, '"' || c.type || '"') > 0) AS is_taken) taking
    CROSS JOIN LATERAL (
        SELECT taking.is_taken, taking.is_taken AND coalesce(term.recompute, false) AND v.state = 'released'
            AND c.state IN ('current', 'superseded') AS is_made) again
    WHERE c.is_home
    UNION ALL
    -- Where they were brought to: for runs, or on their way into an archive.
    SELECT c.id, c.data_location_id, CASE c.location_type WHEN 'processing' THEN 'staged' ELSE 'buffer' END, c.size_bytes,
        c.used_at, c.used_at + c.days * interval '1 day', false,
        CASE
            WHEN c.is_last THEN 'last_sound_copy'
            WHEN c.state IN ('current', 'superseded') AND NOT EXISTS (
                SELECT FROM physical_copy sound
                JOIN data_location l ON l.id = sound.data_location_id AND l.lost_at IS NULL
                WHERE sound.data_product_id = c.product_id AND sound.id <> c.id AND sound.status = 'present')
                THEN 'last_sound_copy'
            WHEN c.is_fetched OR k.run_id IS NOT NULL THEN 'being_read'
            WHEN c.is_in_use THEN 'in_use'
        END
    FROM product c
    LEFT JOIN leaving k ON k.run_id = c.run_id AND k.data_location_id = c.data_location_id
    WHERE NOT c.is_home
)
