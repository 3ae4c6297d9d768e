-- Of runs that repeat others, those for which somebody still waits, which may still be made, and where they are needed.
SELECT r.id
FROM executed_reduction_step r
JOIN reduction_software_version v ON v.id = r.software_version_id AND v.state = 'released'
JOIN sub_group u ON u.reduction_step_id = r.reduction_step_id AND u.key = r.sub_group_key
WHERE r.id = ANY(:runs) AND r.data_location_id = :location AND (
    EXISTS (
        SELECT FROM sub_group_package above
        JOIN sub_group_package m ON m.raw_data_package_id = above.raw_data_package_id
        JOIN unnest(:upstream, :below) AS edge (upstream_id, step_id)
            ON edge.upstream_id = above.reduction_step_id AND edge.step_id = m.reduction_step_id
        JOIN sub_group g ON g.id = m.sub_group_id
        JOIN executed_reduction_step taker ON taker.id = g.active_run_id
        WHERE above.sub_group_id = u.id AND taker.status IN ('pending', 'failed') AND taker.reason <> 'recompute')
    OR EXISTS (
        SELECT FROM executed_reduction_step made
        JOIN data_product d ON d.run_id = made.id
        JOIN run_input i ON i.data_product_id = d.id
        JOIN executed_reduction_step taker ON taker.id = i.run_id
        WHERE made.reduction_step_id = u.reduction_step_id AND made.sub_group_key = u.key AND taker.id <> r.id
          AND taker.status IN ('pending', 'failed') AND (taker.is_trial OR taker.reason = 'recompute')
          AND (taker.status = 'pending' OR taker.retry_at IS NOT NULL)))
