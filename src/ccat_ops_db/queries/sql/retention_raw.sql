-- Copies of raw data outside of archives.
-- How many verified archive copies there are of a package, and how many of these where somebody could read them.
archived AS MATERIALIZED (
    SELECT p.id, count(*) AS copies, count(*) FILTER (WHERE NOT l.is_away) AS at_hand
    FROM physical_copy a
    JOIN archive l ON l.id = a.data_location_id
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
-- Of `lost` ones, which were archived, no copy is left.
package AS NOT MATERIALIZED (
    SELECT p.id, p.state = 'archived' AS is_archived, p.id = ANY(:lost) AS is_lost, p.archived_at, p.size_bytes, p.checksum,
        p.data_transfer_package_id, kind.needed, coalesce(archived.copies, 0) AS verified, coalesce(archived.at_hand, 0) AS at_hand
    FROM raw_data_package p
    JOIN kind ON kind.instrument_module_id = p.instrument_module_id
    LEFT JOIN archived ON archived.id = p.id
),
-- Paths at a source that several registered files have: what lies there is the newest of them.
shared_path AS MATERIALIZED (
    SELECT c.data_location_id, c.path FROM physical_copy c
    WHERE c.raw_data_file_id IS NOT NULL AND c.status <> 'deleted' AND {paths}
    GROUP BY c.data_location_id, c.path HAVING count(*) > 1
),
shared AS MATERIALIZED (
    SELECT c.id
    FROM shared_path JOIN physical_copy c USING (data_location_id, path)
    WHERE c.raw_data_file_id IS NOT NULL AND c.status <> 'deleted'
),
read AS MATERIALIZED (
    SELECT t.origin_id AS data_location_id, t.raw_data_package_id
    FROM long_term_archive_transfer t WHERE t.status IN ('pending', 'scheduled', 'in_progress')
    UNION
    SELECT unnest(ARRAY[t.origin_id, t.destination_id]), a.raw_data_package_id
    FROM data_transfer t JOIN long_term_archive_transfer a ON a.data_transfer_id = t.id
    WHERE t.status IN ('pending', 'scheduled', 'in_progress') AND a.status IN ('pending', 'scheduled', 'in_progress')
),
staging AS MATERIALIZED (
    SELECT DISTINCT j.data_location_id, j.raw_data_package_id
    FROM staging_job j WHERE j.status IN ('pending', 'scheduled', 'in_progress')
),
raw_copy AS (
    SELECT c.id, c.data_location_id, 'source' AS kind, coalesce(c.size_bytes, f.size_bytes) AS size_bytes,
        p.archived_at AS since, p.archived_at + place.days * interval '1 day' AS due_at, false AS is_needed_soon,
        CASE
            WHEN f.raw_data_package_id IS NULL THEN 'unpacked'
            WHEN NOT p.is_archived THEN 'not_archived'
            WHEN p.verified < p.needed THEN CASE WHEN p.is_lost THEN 'no_copy_left' ELSE 'too_few_copies' END
            WHEN p.at_hand < p.needed THEN 'archives_away'
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
            WHEN p.verified < enough.copies THEN CASE WHEN p.is_lost THEN 'no_copy_left' ELSE 'too_few_copies' END
            WHEN p.at_hand < enough.copies THEN 'archives_away'
            WHEN t.raw_data_package_id IS NOT NULL THEN 'being_read'
        END
    FROM physical_copy c
    JOIN place ON place.id = c.data_location_id AND place.location_type NOT IN ('processing', 'long_term_archive')
    JOIN package p ON p.id = c.raw_data_package_id
    LEFT JOIN read t ON t.data_location_id = c.data_location_id AND t.raw_data_package_id = p.id
    -- One that was let go before is no copy that another could be made of: whoever restores it waits for its end.
    CROSS JOIN LATERAL (SELECT CASE c.status WHEN 'deletion_failed' THEN 1 ELSE p.needed END AS copies) enough
    WHERE c.raw_data_package_id IS NOT NULL AND c.status IN ({statuses}) AND {scope}
    UNION ALL
    SELECT c.id, c.data_location_id, 'buffer', coalesce(c.size_bytes, t.size_bytes, 0),
        p.archived_at, p.archived_at + place.days * interval '1 day', false,
        CASE
            WHEN p.is_archived IS NOT TRUE THEN 'not_archived'
            WHEN NOT p.is_safe THEN 'too_few_copies'
            WHEN NOT p.is_at_hand THEN 'archives_away'
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
            bool_and(p.at_hand >= p.needed) AS is_at_hand, max(p.archived_at) AS archived_at
        FROM package p WHERE p.data_transfer_package_id = t.id) p
    WHERE c.data_transfer_package_id IS NOT NULL AND c.status IN ({statuses}) AND {scope}
    UNION ALL
    SELECT c.id, c.data_location_id, 'staged', coalesce(c.size_bytes, p.size_bytes, 0), used.since,
        used.since + place.days * interval '1 day', {soon},
        CASE
            WHEN NOT p.is_archived THEN 'not_archived'
            WHEN p.verified < 1 THEN CASE WHEN p.is_lost THEN 'no_copy_left' ELSE 'too_few_copies' END
            WHEN p.at_hand < 1 THEN 'archives_away'
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
)
