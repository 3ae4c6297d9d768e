-- After which runs of a plan some sub-groups of a step get theirs: at most three names, and how many there are.
WITH edge AS MATERIALIZED (
    SELECT DISTINCT m.sub_group_id, above.sub_group_id AS upstream_id
    FROM sub_group g
    JOIN sub_group_package m ON m.sub_group_id = g.id
    JOIN sub_group_package above
        ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
    WHERE g.reduction_step_id = :step AND g.key = ANY(:keys) AND NOT m.is_faded AND NOT above.is_faded
)
SELECT g.key, (array_agg(step.key || ' ' || u.path ORDER BY step.key COLLATE "C", u.key COLLATE "C"))[1:3] AS names,
    count(*) AS number
FROM edge e
JOIN sub_group g ON g.id = e.sub_group_id
JOIN sub_group u ON u.id = e.upstream_id
JOIN reduction_step step ON step.id = u.reduction_step_id
JOIN plan_row p ON p.plan_id = :plan AND p.reduction_step_id = u.reduction_step_id AND p.sub_group_key = u.key
GROUP BY g.key
