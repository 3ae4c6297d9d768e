-- Which packages of each sub-group of a step a run of now goes without, and why. Only what differs is written.
WITH wanted AS (
    SELECT m.reduction_step_id, m.raw_data_package_id,
        CASE
            WHEN NOT bool_or(above.raw_data_package_id IS NOT NULL) THEN NULL
            WHEN :omits AND bool_or(above.is_given_up) THEN 'omitted'
            WHEN EXISTS (
                SELECT FROM accepted_coverage a JOIN accepted_package p ON p.accepted_coverage_id = a.id
                WHERE a.reduction_step_id = :step AND a.sub_group_key = g.key
                  AND p.raw_data_package_id = m.raw_data_package_id) THEN 'omitted'
            WHEN :takes_available THEN 'awaited'
        END AS left_out
    FROM sub_group g
    JOIN sub_group_package m ON m.sub_group_id = g.id
    LEFT JOIN sub_group_package above
        ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
        AND NOT above.is_ready AND NOT above.is_faded
    WHERE g.reduction_step_id = :step AND {scope}
    GROUP BY m.reduction_step_id, m.raw_data_package_id, g.key
),
news AS (
    UPDATE sub_group_package m SET left_out = w.left_out
    FROM wanted w
    WHERE m.reduction_step_id = w.reduction_step_id AND m.raw_data_package_id = w.raw_data_package_id
      AND m.left_out IS DISTINCT FROM w.left_out
    RETURNING m.sub_group_id
)
SELECT sub_group_id FROM news
