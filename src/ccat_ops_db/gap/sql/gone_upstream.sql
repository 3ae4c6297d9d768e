-- Of some sub-groups of a step, those further up that made something that runs of now would take, and of which nobody has
-- a copy anywhere: what lies elsewhere, or in an archive, is brought.
SELECT edge.sub_group_id, edge.upstream_id
FROM (
    SELECT DISTINCT m.sub_group_id, above.sub_group_id AS upstream_id
    FROM sub_group_package m
    JOIN sub_group_package above
        ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
    WHERE m.sub_group_id = ANY(:ids) AND NOT m.is_faded AND m.left_out IS NULL AND NOT above.is_faded
) edge
JOIN sub_group u ON u.id = edge.upstream_id
WHERE EXISTS (
    SELECT FROM data_product d
    WHERE d.run_id = u.last_run_id AND d.state IN ('current', 'superseded') AND d.type <> ALL(:unlisted)
      AND NOT EXISTS (
        SELECT FROM physical_copy c
        WHERE c.data_product_id = d.id
          AND c.{sound}))
