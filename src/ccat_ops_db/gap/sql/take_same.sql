-- Runs whose inputs are fixed take the same bytes of another run where of a product nobody has a copy any more, those that
-- are where they run first.
UPDATE run_input i SET data_product_id = found.same_id
FROM (
    SELECT DISTINCT ON (taken.id) taken.id, same.id AS same_id
    FROM run_input taken
    JOIN data_product d ON d.id = taken.data_product_id
    JOIN executed_reduction_step maker ON maker.id = d.run_id
    JOIN executed_reduction_step other
        ON other.reduction_step_id = maker.reduction_step_id AND other.sub_group_key = maker.sub_group_key
    JOIN data_product same ON same.run_id = other.id AND same.relative_path = d.relative_path
        AND same.checksum = d.checksum AND same.state IN ('current', 'superseded')
    JOIN physical_copy c ON c.data_product_id = same.id
        AND c.{sound}
    WHERE taken.run_id = ANY(:runs) AND NOT EXISTS (
        SELECT FROM physical_copy own
        WHERE own.data_product_id = d.id
          AND own.{sound})
    ORDER BY taken.id, c.data_location_id = :location DESC, same.id DESC
) found
WHERE i.id = found.id
