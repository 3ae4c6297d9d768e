-- Copies in archives.
-- Packages that somebody may be reading from an archive, or is about to.
wanted_back AS MATERIALIZED (
    SELECT t.raw_data_package_id FROM long_term_archive_transfer t WHERE t.status IN ('pending', 'scheduled', 'in_progress')
    UNION
    SELECT j.raw_data_package_id FROM staging_job j WHERE j.status IN ('pending', 'scheduled', 'in_progress')
),
-- Archives that others rely on, and since when they have to have read a copy for that.
relied_on AS MATERIALIZED (
    SELECT l.id, now() - coalesce(nullif(l.scrub_days, 0) * interval '1 day', :scrubbed) - :behind AS read_since
    FROM data_location l JOIN archive ON archive.id = l.id AND NOT archive.is_away
    WHERE l.active AND l.trouble IS NULL AND NOT EXISTS (SELECT FROM pause h WHERE h.data_location_id = l.id)
),
-- Where an archive copy was read lately, by package.
readable AS MATERIALIZED (
    SELECT p.id, array_agg(a.data_location_id) AS places
    FROM physical_copy a
    JOIN relied_on l ON l.id = a.data_location_id AND a.verified_at >= l.read_since
    JOIN raw_data_package p ON p.id = a.raw_data_package_id AND p.checksum = a.checksum
    WHERE a.status = 'present' AND {packages}
    GROUP BY p.id
),
archived_copy AS (
    SELECT c.id, c.data_location_id, 'archived' AS kind, coalesce(c.size_bytes, p.size_bytes, 0) AS size_bytes,
        c.created_at AS since, c.created_at + place.days * interval '1 day' AS due_at, false AS is_needed_soon,
        CASE
            WHEN NOT p.is_archived THEN 'not_archived'
            -- the others, as this one is one of the verified while it is present
            WHEN p.verified - ((c.status = 'present' AND c.verified_at IS NOT NULL AND c.checksum = p.checksum) IS TRUE)::int
                < p.needed THEN 'too_few_copies'
            WHEN coalesce(cardinality(array_remove(o.places, c.data_location_id)), 0) < p.needed THEN 'not_read_lately'
            WHEN b.raw_data_package_id IS NOT NULL THEN 'being_read'
        END AS obstacle
    FROM physical_copy c
    JOIN place ON place.id = c.data_location_id AND place.location_type = 'long_term_archive'
    JOIN package p ON p.id = c.raw_data_package_id
    LEFT JOIN readable o ON o.id = p.id
    LEFT JOIN wanted_back b ON b.raw_data_package_id = p.id
    WHERE c.raw_data_package_id IS NOT NULL AND c.status IN ({statuses}) AND {scope}
    UNION ALL
    SELECT c.id, c.data_location_id, 'archived_product', d.size_bytes, c.created_at,
        c.created_at + place.days * interval '1 day', false,
        CASE
            WHEN EXISTS (
                SELECT FROM physical_copy bad
                WHERE bad.data_product_id = d.id AND bad.status IN ('corrupt', 'missing'))
                THEN 'last_sound_copy'
            WHEN d.state = 'current' THEN 'counts'
            WHEN t.data_product_id IS NOT NULL THEN 'in_use'
            WHEN EXISTS (
                SELECT FROM product_archive_transfer k
                WHERE k.run_id = d.run_id AND k.status IN ('pending', 'scheduled', 'in_progress')) THEN 'being_read'
        END
    FROM physical_copy c
    JOIN place ON place.id = c.data_location_id AND place.location_type = 'long_term_archive'
    JOIN data_product d ON d.id = c.data_product_id
    LEFT JOIN (SELECT DISTINCT data_product_id FROM taken) t ON t.data_product_id = d.id
    WHERE c.data_product_id IS NOT NULL AND c.status IN ({statuses}) AND {scope}
)
