-- Raw packages that go into runs, directly or through the runs whose products they take; and which of them came along with
-- those, as their sub-groups do not have them.
INSERT INTO run_coverage (run_id, raw_data_package_id, is_excess)
SELECT taken.run_id, taken.raw_data_package_id, NOT EXISTS (
    SELECT FROM sub_group_package m
    WHERE m.sub_group_id = taken.sub_group_id AND m.raw_data_package_id = taken.raw_data_package_id)
FROM (
    SELECT t.run_id, t.sub_group_id, i.raw_data_package_id
    FROM unnest(:runs, :groups) AS t (run_id, sub_group_id)
    JOIN run_input i ON i.run_id = t.run_id AND i.role = 'raw'
    UNION
    SELECT t.run_id, t.sub_group_id, c.raw_data_package_id
    FROM unnest(:runs, :groups) AS t (run_id, sub_group_id)
    JOIN run_input i ON i.run_id = t.run_id AND i.role = 'upstream'
    JOIN data_product d ON d.id = i.data_product_id
    JOIN run_coverage c ON c.run_id = d.run_id
) taken
ON CONFLICT DO NOTHING
