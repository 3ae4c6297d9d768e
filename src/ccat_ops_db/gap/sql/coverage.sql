-- Raw packages that go into runs, directly or through the runs whose products they take.
INSERT INTO run_coverage (run_id, raw_data_package_id)
SELECT i.run_id, i.raw_data_package_id FROM run_input i WHERE i.run_id = ANY(:runs) AND i.role = 'raw'
UNION
SELECT i.run_id, c.raw_data_package_id
FROM run_input i JOIN data_product d ON d.id = i.data_product_id JOIN run_coverage c ON c.run_id = d.run_id
WHERE i.run_id = ANY(:runs) AND i.role = 'upstream'
ON CONFLICT DO NOTHING
