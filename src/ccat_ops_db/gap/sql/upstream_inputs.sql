INSERT INTO run_input (run_id, role, data_product_id)
SELECT DISTINCT t.run_id, 'upstream', d.id
FROM unnest(:runs, :groups) AS t (run_id, sub_group_id)
JOIN sub_group_package m ON m.sub_group_id = t.sub_group_id
JOIN sub_group_package above
    ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
JOIN sub_group u ON u.id = above.sub_group_id
JOIN data_product d ON d.run_id = u.last_run_id
WHERE NOT m.is_faded AND m.left_out IS NULL AND NOT above.is_faded
  AND d.state IN ('current', 'superseded') AND d.type <> ALL(:unlisted)
