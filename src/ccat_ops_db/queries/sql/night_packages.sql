-- How far the raw packages of a night are, excluded only once they are archived; failures that differ in numbers only are
-- one. Of `lost` ones, which were archived, no copy is left. What a person gave up of these, and of failed ones, says why.
SELECT CASE WHEN p.given_up_at IS NOT NULL AND (p.state = 'failed' OR p.id = ANY(:lost)) THEN 'given up'
        WHEN p.id = ANY(:lost) THEN 'archived and no copy left'
        WHEN p.state = 'archived' AND (p.excluded_at IS NOT NULL OR p.withdrawn_at IS NOT NULL) THEN 'excluded'
        ELSE p.state END AS state,
    count(*) AS number, min(coalesce(p.given_up_because, p.failure)) AS failure
FROM executed_obs_unit e
JOIN raw_data_package p ON p.executed_obs_unit_id = e.id
WHERE e.observing_night = :night
GROUP BY 1, regexp_replace(coalesce(p.given_up_because, p.failure, ''), '[0-9]+', '#', 'g')
ORDER BY count(*) DESC, 1
