-- Copies that might go, each with what hinders that, the weightiest obstacle or none, and when its time is over.
-- Those in archives are found by another file, which is a part of this one where archives are asked about.
WITH place AS MATERIALIZED (
    SELECT l.id, l.location_type, given.days
    FROM unnest(:locations, :days) AS given (id, days)
    JOIN data_location l ON l.id = given.id
),
-- How many verified archive copies there are of a package.
archived AS MATERIALIZED (
    SELECT p.id, count(*) AS copies
    FROM physical_copy a
    JOIN data_location l ON l.id = a.data_location_id AND l.location_type = 'long_term_archive'
    JOIN raw_data_package p ON p.id = a.raw_data_package_id AND p.checksum = a.checksum
    WHERE a.status = 'present' AND a.verified_at IS NOT NULL AND {packages}
    GROUP BY p.id
),
kind AS MATERIALIZED (
    SELECT m.id AS instrument_module_id, coalesce(k.min_verified_archive_copies, 1) AS needed
    FROM instrument_module m
    JOIN instrument i ON i.id = m.instrument_id
    LEFT JOIN data_class k ON k.id = coalesce(i.data_class_id, (SELECT usual.id FROM data_class usual WHERE usual.name = 'raw'))
),
package AS NOT MATERIALIZED (
    SELECT p.id, p.state = 'archived' AS is_archived, p.archived_at, p.size_bytes, p.checksum, p.data_transfer_package_id,
        kind.needed, coalesce(archived.copies, 0) AS verified
    FROM raw_data_package p
    JOIN kind ON kind.instrument_module_id = p.instrument_module_id
    LEFT JOIN archived ON archived.id = p.id
),
-- Paths at a source that several registered files have: what lies there is the newest of them.
shared AS MATERIALIZED (
    SELECT c.id
    FROM (SELECT c.data_location_id, c.path FROM physical_copy c
          WHERE c.raw_data_file_id IS NOT NULL AND c.status <> 'deleted' AND {paths}
          GROUP BY c.data_location_id, c.path HAVING count(*) > 1) several
    JOIN physical_copy c ON c.data_location_id = several.data_location_id AND c.path = several.path
    WHERE c.raw_data_file_id IS NOT NULL AND c.status <> 'deleted'
),
read AS MATERIALIZED (
    SELECT t.origin_id AS data_location_id, t.raw_data_package_id
    FROM long_term_archive_transfer t WHERE t.status IN ('pending', 'scheduled', 'in_progress')
    UNION
    SELECT unnest(ARRAY[t.origin_id, t.destination_id]), a.raw_data_package_id
    FROM data_transfer t JOIN long_term_archive_transfer a ON a.data_transfer_id = t.id
    WHERE t.status IN ('pending', 'scheduled', 'in_progress')
),
-- Packages that somebody may be reading from an archive, or is about to.
wanted_back AS MATERIALIZED (
    SELECT t.raw_data_package_id FROM long_term_archive_transfer t WHERE t.status IN ('pending', 'scheduled', 'in_progress')
    UNION
    SELECT j.raw_data_package_id FROM staging_job j WHERE j.status IN ('pending', 'scheduled', 'in_progress')
),
staging AS MATERIALIZED (
    SELECT DISTINCT j.data_location_id, j.raw_data_package_id
    FROM staging_job j WHERE j.status IN ('pending', 'scheduled', 'in_progress')
),
-- Products that are brought from one location to another: any copy may be what is read.
fetched AS MATERIALIZED (
    SELECT DISTINCT j.data_product_id
    FROM staging_job j WHERE j.data_product_id IS NOT NULL AND j.status IN ('pending', 'scheduled', 'in_progress')
),
taken AS MATERIALIZED (
    SELECT DISTINCT r.data_location_id, i.raw_data_package_id, i.data_product_id
    FROM executed_reduction_step r JOIN run_input i ON i.run_id = r.id
    WHERE r.status IN ('pending', 'staging_data', 'submitted', 'running', 'collecting_results')
       OR r.status = 'failed' AND r.retry_at IS NOT NULL
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
copy AS (
    SELECT c.id, c.data_location_id, 'source' AS kind, coalesce(c.size_bytes, f.size_bytes) AS size_bytes,
        p.archived_at AS since, p.archived_at + place.days * interval '1 day' AS due_at, false AS is_needed_soon,
        CASE
            WHEN f.raw_data_package_id IS NULL THEN 'unpacked'
            WHEN NOT p.is_archived THEN 'not_archived'
            WHEN p.verified < p.needed THEN 'too_few_copies'
            WHEN s.id IS NOT NULL THEN 'shared_path'
        END AS obstacle
    FROM physical_copy c
    JOIN place ON place.id = c.data_location_id
    JOIN raw_data_file f ON f.id = c.raw_data_file_id
    LEFT JOIN package p ON p.id = f.raw_data_package_id
    LEFT JOIN shared s ON s.id = c.id
    WHERE c.raw_data_file_id IS NOT NULL AND c.status IN ({statuses}) AND {scope}
    UNION ALL
    SELECT c.id, c.data_location_id, 'buffer', coalesce(c.size_bytes, p.size_bytes, 0),
        p.archived_at, p.archived_at + place.days * interval '1 day', false,
        CASE
            WHEN NOT p.is_archived THEN 'not_archived'
            -- One that was let go before is no copy that another could be made of: whoever restores it waits for its end.
            WHEN p.verified < CASE c.status WHEN 'deletion_failed' THEN 1 ELSE p.needed END THEN 'too_few_copies'
            WHEN t.raw_data_package_id IS NOT NULL THEN 'being_read'
        END
    FROM physical_copy c
    JOIN place ON place.id = c.data_location_id AND place.location_type NOT IN ('processing', 'long_term_archive')
    JOIN package p ON p.id = c.raw_data_package_id
    LEFT JOIN read t ON t.data_location_id = c.data_location_id AND t.raw_data_package_id = p.id
    WHERE c.raw_data_package_id IS NOT NULL AND c.status IN ({statuses}) AND {scope}
    UNION ALL
    SELECT c.id, c.data_location_id, 'buffer', coalesce(c.size_bytes, t.size_bytes, 0),
        p.archived_at, p.archived_at + place.days * interval '1 day', false,
        CASE
            WHEN p.is_archived IS NOT TRUE THEN 'not_archived'
            WHEN NOT p.is_safe THEN 'too_few_copies'
            WHEN EXISTS (
                SELECT FROM data_transfer d
                WHERE d.data_transfer_package_id = t.id AND c.data_location_id IN (d.origin_id, d.destination_id)
                  AND d.status IN ('pending', 'scheduled', 'in_progress')) THEN 'being_read'
        END
    FROM physical_copy c
    JOIN place ON place.id = c.data_location_id
    JOIN data_transfer_package t ON t.id = c.data_transfer_package_id
    CROSS JOIN LATERAL (
        SELECT bool_and(p.is_archived) AS is_archived, bool_and(p.verified >= p.needed) AS is_safe,
            max(p.archived_at) AS archived_at
        FROM package p WHERE p.data_transfer_package_id = t.id) p
    WHERE c.data_transfer_package_id IS NOT NULL AND c.status IN ({statuses}) AND {scope}
    UNION ALL
    SELECT c.id, c.data_location_id, 'staged', coalesce(c.size_bytes, p.size_bytes, 0), used.since,
        used.since + place.days * interval '1 day', {soon},
        CASE
            WHEN NOT p.is_archived THEN 'not_archived'
            WHEN p.verified < 1 THEN 'too_few_copies'
            WHEN j.raw_data_package_id IS NOT NULL THEN 'being_staged'
            WHEN t.raw_data_package_id IS NOT NULL THEN 'in_use'
        END
    FROM physical_copy c
    JOIN place ON place.id = c.data_location_id AND place.location_type = 'processing'
    JOIN package p ON p.id = c.raw_data_package_id
    LEFT JOIN staging j ON j.data_location_id = c.data_location_id AND j.raw_data_package_id = p.id
    LEFT JOIN taken t ON t.data_location_id = c.data_location_id AND t.raw_data_package_id = p.id
    CROSS JOIN LATERAL (SELECT coalesce(c.used_at, c.verified_at, c.created_at) AS since) used
    WHERE c.raw_data_package_id IS NOT NULL AND c.status IN ({statuses}) AND {scope}
    UNION ALL
    SELECT c.id, c.data_location_id, CASE WHEN again.is_made THEN 'recomputable' ELSE 'product' END, d.size_bytes,
        d.created_at, CASE WHEN r.is_trial THEN r.expires_at ELSE d.created_at + term.days * interval '1 day' END,
        again.is_made,  -- to make it again costs more than to stage something again
        CASE
            WHEN EXISTS (
                SELECT FROM physical_copy bad
                WHERE bad.data_product_id = d.id AND bad.status IN ('corrupt', 'missing'))
              AND NOT EXISTS (
                SELECT FROM physical_copy sound
                WHERE sound.data_product_id = d.id AND sound.id <> c.id AND sound.status = 'present')
                THEN 'last_sound_copy'
            WHEN t.data_product_id IS NOT NULL THEN 'in_use'
            WHEN EXISTS (
                SELECT FROM product_archive_transfer k
                WHERE k.run_id = d.run_id AND k.status IN ('pending', 'scheduled', 'in_progress', 'failed'))
                OR f.data_product_id IS NOT NULL THEN 'being_read'
            WHEN d.state NOT IN ('current', 'superseded') THEN NULL
            WHEN again.is_made AND (w.is_awaited OR a.sub_group_key IS NOT NULL) THEN 'awaited'
            WHEN again.is_taken AND NOT again.is_made THEN 'wanted'
            WHEN g.id IS NOT NULL AND d.type = ANY(:inputs) AND (d.state = 'current' OR n.id IS NOT NULL) THEN 'wanted'
        END
    FROM physical_copy c
    JOIN place ON place.id = c.data_location_id AND place.location_type <> 'long_term_archive'
    JOIN data_product d ON d.id = c.data_product_id
    JOIN executed_reduction_step r ON r.id = d.run_id
    LEFT JOIN term ON term.reduction_step_id = r.reduction_step_id
    LEFT JOIN taken t ON t.data_location_id = c.data_location_id AND t.data_product_id = d.id
    LEFT JOIN fetched f ON f.data_product_id = d.id
    LEFT JOIN wanted w ON w.run_id = r.id
    LEFT JOIN calibrator g ON g.id = r.reduction_step_id
    LEFT JOIN calibration n ON n.id = d.id
    LEFT JOIN awaited a ON a.reduction_step_id = r.reduction_step_id AND a.sub_group_key = r.sub_group_key
    JOIN reduction_software_version v ON v.id = r.software_version_id
    CROSS JOIN LATERAL (
        SELECT w.run_id IS NOT NULL AND (
            d.type = ANY(:inputs) OR strpos(w.listed_types, '"' || d.type || '"') > 0) AS is_taken) taking
    CROSS JOIN LATERAL (
        SELECT taking.is_taken, taking.is_taken AND coalesce(term.recompute, false) AND v.state = 'released'
            AND d.state IN ('current', 'superseded') AS is_made) again
    WHERE c.data_product_id IS NOT NULL AND c.data_location_id = r.data_location_id
        AND c.status IN ({statuses}) AND {scope}
    UNION ALL
    -- Products that were brought to where they were not made: for runs, or on their way into an archive.
    SELECT c.id, c.data_location_id, CASE place.location_type WHEN 'processing' THEN 'staged' ELSE 'buffer' END,
        d.size_bytes, used.since, used.since + place.days * interval '1 day', false,
        CASE
            WHEN d.state IN ('current', 'superseded') AND NOT EXISTS (
                SELECT FROM physical_copy sound
                WHERE sound.data_product_id = d.id AND sound.id <> c.id AND sound.status = 'present')
                THEN 'last_sound_copy'
            WHEN f.data_product_id IS NOT NULL OR EXISTS (
                SELECT FROM product_archive_transfer k
                WHERE k.run_id = d.run_id AND k.origin_id = c.data_location_id
                  AND k.status IN ('pending', 'scheduled', 'in_progress', 'failed')) THEN 'being_read'
            WHEN t.data_product_id IS NOT NULL THEN 'in_use'
        END
    FROM physical_copy c
    JOIN place ON place.id = c.data_location_id AND place.location_type <> 'long_term_archive'
    JOIN data_product d ON d.id = c.data_product_id
    JOIN executed_reduction_step r ON r.id = d.run_id AND r.data_location_id <> c.data_location_id
    LEFT JOIN taken t ON t.data_location_id = c.data_location_id AND t.data_product_id = d.id
    LEFT JOIN fetched f ON f.data_product_id = d.id
    CROSS JOIN LATERAL (SELECT coalesce(c.used_at, c.verified_at, c.created_at) AS since) used
    WHERE c.data_product_id IS NOT NULL AND c.status IN ({statuses}) AND {scope}
    {archives}
)
