-- Sub-groups of a step that get a run after what is planned further up: they share packages with it, and they do not
-- wait besides for something that nobody will run.
INSERT INTO plan_row (plan_id, number, reduction_step_id, sub_group_key)
SELECT :plan, (SELECT max(p.number) FROM plan_row p WHERE p.plan_id = :plan)
    + row_number() OVER (ORDER BY g.key COLLATE "C"), g.reduction_step_id, g.key
FROM sub_group g
WHERE g.id IN (
        SELECT m.sub_group_id
        FROM plan_row p
        JOIN sub_group u ON u.reduction_step_id = p.reduction_step_id AND u.key = p.sub_group_key
        JOIN sub_group_package above ON above.sub_group_id = u.id
        JOIN sub_group_package m
            ON m.reduction_step_id = :step AND m.raw_data_package_id = above.raw_data_package_id
        WHERE p.plan_id = :plan AND p.reduction_step_id = ANY(:upstream) AND NOT above.is_faded AND NOT m.is_faded)
  AND g.id NOT IN (
        SELECT m.sub_group_id
        FROM sub_group u
        JOIN sub_group_package above ON above.sub_group_id = u.id
        JOIN sub_group_package m
            ON m.reduction_step_id = :step AND m.raw_data_package_id = above.raw_data_package_id
        JOIN sub_group waiting ON waiting.id = m.sub_group_id
        WHERE u.reduction_step_id = ANY(:upstream) AND u.verdict IN ('blocked', 'failed', 'cancelled')
          AND u.active_run_id IS NULL AND NOT above.is_ready AND NOT above.is_faded AND NOT m.is_faded
          AND (waiting.cut_off IS NULL OR m.archived_at <= waiting.cut_off)
          AND NOT EXISTS (
            SELECT FROM plan_row p
            WHERE p.plan_id = :plan AND p.reduction_step_id = u.reduction_step_id AND p.sub_group_key = u.key))
  AND NOT EXISTS (SELECT FROM auxiliary_nearest n WHERE n.sub_group_id = g.id AND n.run_id IS NULL)
  AND NOT EXISTS (
        SELECT FROM plan_row p
        WHERE p.plan_id = :plan AND p.reduction_step_id = :step AND p.sub_group_key = g.key)
