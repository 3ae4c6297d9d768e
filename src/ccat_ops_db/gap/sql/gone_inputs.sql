-- Of runs whose inputs are fixed, the products among these of which nobody has a copy anywhere, nor of the same
-- bytes made by another run of that sub-group; and the sub-group whose newest run can be repeated for them, if there is one.
SELECT DISTINCT i.run_id, (
    SELECT u.id
    FROM sub_group u JOIN data_product again ON again.run_id = u.last_run_id
    WHERE u.reduction_step_id = maker.reduction_step_id AND u.key = maker.sub_group_key
      AND maker.reduction_step_id = ANY(:remade) AND again.state IN ('current', 'superseded')
      AND again.relative_path = d.relative_path AND again.checksum = d.checksum) AS upstream_id
FROM run_input i
JOIN data_product d ON d.id = i.data_product_id
JOIN executed_reduction_step maker ON maker.id = d.run_id
WHERE i.run_id = ANY(:runs) AND NOT EXISTS (
    SELECT FROM executed_reduction_step other
    JOIN data_product same ON same.run_id = other.id
        AND same.relative_path = d.relative_path AND same.checksum = d.checksum
        AND (same.id = d.id OR same.state IN ('current', 'superseded'))
    JOIN physical_copy c ON c.data_product_id = same.id
        AND c.{sound}
    WHERE other.reduction_step_id = maker.reduction_step_id AND other.sub_group_key = maker.sub_group_key)
