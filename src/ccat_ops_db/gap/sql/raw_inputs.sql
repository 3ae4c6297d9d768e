INSERT INTO run_input (run_id, role, raw_data_package_id, excluded_pixels)
SELECT t.run_id, 'raw', m.raw_data_package_id, m.excluded_pixels
FROM unnest(:runs, :groups) AS t (run_id, sub_group_id)
JOIN sub_group_package m ON m.sub_group_id = t.sub_group_id
WHERE :takes_raw AND NOT m.is_faded AND m.left_out IS NULL
