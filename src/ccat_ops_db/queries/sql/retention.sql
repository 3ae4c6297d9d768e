-- What is known of copies that might go, whatever they are of: a file for each kind of them begins where this ends.
WITH place AS MATERIALIZED (
    SELECT l.id, l.location_type, given.days
    FROM unnest(:locations, :days) AS given (id, days)
    JOIN data_location l ON l.id = given.id
),
taken AS MATERIALIZED (
    SELECT DISTINCT r.data_location_id, i.raw_data_package_id, i.data_product_id
    FROM executed_reduction_step r JOIN run_input i ON i.run_id = r.id
    WHERE r.status IN ('pending', 'staging_data', 'submitted', 'running', 'collecting_results')
       OR r.status = 'failed' AND r.retry_at IS NOT NULL
)
