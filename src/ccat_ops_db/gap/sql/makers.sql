-- After which runs of a plan some sub-groups of a step get theirs: at most three names, and how many there are.
SELECT g.key, (array_agg(u.name ORDER BY u.step_key COLLATE "C", u.key COLLATE "C"))[1:3] AS names, count(*) AS number
FROM sub_group g
JOIN LATERAL (
    SELECT DISTINCT step.key AS step_key, u.key, step.key || ' ' || u.path AS name
    FROM sub_group_package m
    JOIN sub_group_package above
        ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
    JOIN sub_group u ON u.id = above.sub_group_id
    JOIN reduction_step step ON step.id = u.reduction_step_id
    JOIN plan_row p ON p.plan_id = :plan AND p.reduction_step_id = u.reduction_step_id AND p.sub_group_key = u.key
    WHERE m.sub_group_id = g.id AND NOT m.is_faded AND NOT above.is_faded
) u ON true
WHERE g.reduction_step_id = :step AND g.key = ANY(:keys)
GROUP BY g.key
