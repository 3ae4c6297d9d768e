-- What is known of copies that might go, whatever they are of: a file for each kind of them begins where this ends.
WITH place AS MATERIALIZED (
    SELECT l.id, l.location_type, given.days
    FROM unnest(:locations, :days) AS given (id, days)
    JOIN data_location l ON l.id = given.id
),
-- Archives that are not lost; one is away if nothing can be read there, or no worker has seen its disk, or read there,
-- for long or ever.
archive AS MATERIALIZED (
    SELECT l.id, l.unreadable IS NOT NULL OR coalesce(l.space_checked_at, l.probed_at, l.created_at) < now() - :away
        OR coalesce(l.probed_at < now() - :away, false) AS is_away
    FROM data_location l WHERE l.location_type = 'long_term_archive' AND l.lost_at IS NULL
),
taken AS MATERIALIZED (
    SELECT DISTINCT r.data_location_id, i.raw_data_package_id, i.data_product_id
    FROM executed_reduction_step r JOIN run_input i ON i.run_id = r.id
    WHERE r.status IN ('pending', 'staging_data', 'submitted', 'running', 'collecting_results')
       OR r.status = 'failed' AND r.retry_at IS NOT NULL
)
