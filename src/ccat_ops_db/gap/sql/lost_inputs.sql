-- Of some sub-groups of a step, those that would take a product that is damaged or lost.
SELECT DISTINCT m.sub_group_id
FROM sub_group_package m
JOIN sub_group_package above
    ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
JOIN sub_group u ON u.id = above.sub_group_id
JOIN data_product d ON d.run_id = u.last_run_id
WHERE m.sub_group_id = ANY(:ids) AND m.left_out IS NULL AND (
    d.state IN ('orphaned', 'withdrawn')
    OR EXISTS (SELECT FROM physical_copy c WHERE c.data_product_id = d.id AND c.status IN ('corrupt', 'missing'))
    AND NOT EXISTS (
        SELECT FROM physical_copy sound WHERE sound.data_product_id = d.id
          AND sound.{sound}))
