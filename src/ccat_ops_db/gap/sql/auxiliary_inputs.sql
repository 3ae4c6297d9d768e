INSERT INTO run_input (run_id, role, name, data_product_id)
SELECT t.run_id, 'auxiliary', a.name, a.data_product_id
FROM unnest(:runs, :groups) AS t (run_id, sub_group_id)
JOIN auxiliary_choice a ON a.sub_group_id = t.sub_group_id
