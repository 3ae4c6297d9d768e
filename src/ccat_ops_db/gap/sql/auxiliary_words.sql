-- What is told about the auxiliary inputs of some sub-groups of a step: at most three names of each kind, and how many
-- there are. By rule, the packages for which there is nothing; what would be taken instead of what the newest run took;
-- and what that took that does not count any more.
WITH scope AS (
    SELECT g.* FROM sub_group g WHERE g.reduction_step_id = :step AND g.id = ANY(:ids)
),
taken AS (
    SELECT s.id AS sub_group_id, i.name, maker.made_digest, d.id AS data_product_id,
        d.state IN ('orphaned', 'withdrawn')
        OR EXISTS (SELECT FROM physical_copy c WHERE c.data_product_id = d.id AND c.status IN ('corrupt', 'missing'))
        AND NOT EXISTS (
            SELECT FROM physical_copy sound WHERE sound.data_product_id = d.id
              AND sound.{sound}) AS is_lost
    FROM scope s
    JOIN run_input i ON i.run_id = s.last_run_id AND i.role = 'auxiliary'
    JOIN data_product d ON d.id = i.data_product_id
    JOIN executed_reduction_step maker ON maker.id = d.run_id
    WHERE s.reason = 'auxiliary_changed'
),
changed AS (
    SELECT t.sub_group_id, 'lost' AS kind, t.name, t.data_product_id FROM taken t WHERE t.is_lost
    UNION ALL
    SELECT s.id, 'better', a.name, a.data_product_id
    FROM scope s
    JOIN auxiliary_choice a ON a.sub_group_id = s.id
    JOIN data_product d ON d.id = a.data_product_id
    JOIN executed_reduction_step maker ON maker.id = d.run_id
    WHERE s.reason = 'auxiliary_changed' AND NOT EXISTS (
        SELECT FROM taken t
        WHERE t.sub_group_id = s.id AND t.name = a.name AND t.made_digest = maker.made_digest)
)
SELECT c.sub_group_id, c.kind, NULL AS rule, (array_agg(c.told ORDER BY c.told COLLATE "C"))[1:3] AS names,
    count(*) AS number
FROM (
    SELECT DISTINCT c.sub_group_id, c.kind, c.name || ' of ' || p.name || '/' || step.key || ' ' || r.sub_group_path AS told
    FROM changed c
    JOIN data_product d ON d.id = c.data_product_id
    JOIN executed_reduction_step r ON r.id = d.run_id
    JOIN reduction_step step ON step.id = r.reduction_step_id
    JOIN pipeline p ON p.id = step.pipeline_id
) c
GROUP BY c.sub_group_id, c.kind
UNION ALL
SELECT s.id, 'lacking', n.name, (array_agg(p.name ORDER BY p.id))[1:3], count(*)
FROM scope s
JOIN auxiliary_nearest n ON n.sub_group_id = s.id AND n.run_id IS NULL
JOIN raw_data_package p ON p.id = n.raw_data_package_id
WHERE s.verdict IN ('blocked', 'failed') AND s.reason IS NOT NULL
GROUP BY s.id, n.name
