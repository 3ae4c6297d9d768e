-- Which auxiliary products a run of each sub-group of a step would take now: those of the nearest runs. But where with
-- those of its newest run, as far as rules do not redo for better ones, nothing is to be done, it keeps them.
-- Only what differs is written.
WITH scope AS MATERIALIZED (
    SELECT g.id, l.id AS last_run_id, l.input_digest,
        coalesce(CASE WHEN :by_series THEN l.series_digest = :series ELSE l.recipe_digest = :recipe END, :recipe IS NULL)
            AS same_recipe,
        EXISTS (SELECT FROM run_request q
                WHERE q.reduction_step_id = :step AND q.sub_group_key = g.key AND q.is_forced AND NOT EXISTS (
                    SELECT FROM executed_reduction_step r
                    WHERE r.id = q.run_id AND (r.status IN ('completed', 'cancelled')
                        OR r.status = 'failed' AND r.retry_at IS NULL))) AS is_forced
    FROM sub_group g
    LEFT JOIN LATERAL (
        SELECT r.* FROM executed_reduction_step r
        WHERE r.reduction_step_id = :step AND r.sub_group_key = g.key AND NOT r.is_trial AND r.status = 'completed'
        ORDER BY r.id DESC LIMIT 1
    ) l ON true
    WHERE g.reduction_step_id = :step AND {scope}
),
taken AS MATERIALIZED (
    SELECT s.id AS sub_group_id, i.name, i.data_product_id
    FROM scope s JOIN run_input i ON i.run_id = s.last_run_id AND i.role = 'auxiliary'
),
-- Products that do not count any more, are damaged or lost: of the newest runs, and those that they took.
invalid AS MATERIALIZED (
    SELECT d.id, d.run_id
    FROM (SELECT made.id FROM scope s JOIN data_product made ON made.run_id = s.last_run_id
          UNION SELECT data_product_id FROM taken) concerned
    JOIN data_product d ON d.id = concerned.id
    WHERE d.state IN ('orphaned', 'withdrawn')
        OR EXISTS (SELECT FROM physical_copy c WHERE c.data_product_id = d.id AND c.status IN ('corrupt', 'missing'))
        AND NOT EXISTS (
            SELECT FROM physical_copy sound WHERE sound.data_product_id = d.id
              AND sound.{sound})
),
-- Nearest runs that cannot be taken any more, though what says so is still to be handed out: there is none for now.
-- One that was made again meanwhile can.
void AS MATERIALIZED (
    SELECT r.run_id
    FROM (SELECT DISTINCT n.run_id FROM scope s JOIN auxiliary_nearest n ON n.sub_group_id = s.id) r
    WHERE r.run_id IS NOT NULL AND (
        SELECT bool_and(d.state IN ('current', 'superseded')) FROM data_product d
        WHERE d.run_id = r.run_id AND d.type NOT IN ('log', 'plot', 'statistics')
    ) IS NOT TRUE
),
lacking AS (
    UPDATE auxiliary_nearest n SET run_id = NULL
    FROM scope s, void v
    WHERE n.sub_group_id = s.id AND n.run_id = v.run_id
    RETURNING n.sub_group_id
),
nearest AS MATERIALIZED (
    SELECT DISTINCT s.id AS sub_group_id, n.name, d.id AS data_product_id
    FROM scope s
    JOIN auxiliary_nearest n ON n.sub_group_id = s.id
    JOIN data_product d ON d.run_id = n.run_id AND d.type NOT IN ('log', 'plot', 'statistics')
    WHERE n.run_id NOT IN (SELECT run_id FROM void)
),
-- Sub-groups whose newest run took nothing by a rule that now has something to take.
untaken AS MATERIALIZED (
    SELECT n.sub_group_id
    FROM nearest n LEFT JOIN taken t ON t.sub_group_id = n.sub_group_id AND t.name = n.name
    WHERE t.sub_group_id IS NULL
),
-- What the newest run took of rules that do not redo, and the nearest of those that do.
mixed AS MATERIALIZED (
    SELECT * FROM taken WHERE name <> ALL(:redoing) UNION ALL SELECT * FROM nearest WHERE name = ANY(:redoing)
),
raw AS (
    SELECT s.id AS sub_group_id, 'raw' AS role, '' AS step_key, '' AS sub_group_key, p.name AS path, p.checksum,
        m.excluded_pixels
    FROM scope s
    JOIN sub_group_package m ON m.sub_group_id = s.id
    JOIN raw_data_package p ON p.id = m.raw_data_package_id
    WHERE :takes_raw AND NOT m.is_faded AND m.left_out IS NULL AND s.last_run_id IS NOT NULL
),
edge AS (
    SELECT DISTINCT s.id AS sub_group_id, above.sub_group_id AS upstream_id
    FROM scope s
    JOIN sub_group_package m ON m.sub_group_id = s.id
    JOIN sub_group_package above
        ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
    WHERE NOT m.is_faded AND m.left_out IS NULL AND NOT above.is_faded AND s.last_run_id IS NOT NULL
),
upstream AS (
    SELECT e.sub_group_id, 'upstream' AS role, step.key AS step_key, u.key AS sub_group_key,
        d.relative_path AS path, d.checksum, NULL::text[] AS excluded_pixels
    FROM edge e
    JOIN sub_group u ON u.id = e.upstream_id
    JOIN reduction_step step ON step.id = u.reduction_step_id
    JOIN data_product d ON d.run_id = u.last_run_id
    WHERE d.state IN ('current', 'superseded') AND d.type <> ALL(:unlisted)
),
auxiliary AS (
    SELECT a.sub_group_id, 'auxiliary' AS role, a.name || '=' || p.name || '/' || step.key AS step_key,
        r.sub_group_key, d.relative_path AS path, d.checksum, NULL::text[] AS excluded_pixels, a.if_taken, a.if_mixed
    FROM (SELECT t.*, true AS if_taken, false AS if_mixed FROM taken t
          UNION ALL SELECT m.*, false, true FROM mixed m) a
    JOIN data_product d ON d.id = a.data_product_id
    JOIN executed_reduction_step r ON r.id = d.run_id
    JOIN reduction_step step ON step.id = r.reduction_step_id
    JOIN pipeline p ON p.id = step.pipeline_id
),
entry AS (
    SELECT i.*, '["' || i.role || '",' || to_json(i.step_key)::text || ',' || to_json(i.sub_group_key)::text || ','
        || to_json(i.path)::text || ',"' || i.checksum || '"'
        || coalesce(',' || to_json(i.excluded_pixels)::text, '') || ']' AS text
    FROM (SELECT *, true AS if_taken, true AS if_mixed FROM raw
          UNION ALL SELECT *, true, true FROM upstream
          UNION ALL SELECT * FROM auxiliary) i
),
digest AS (
    SELECT e.sub_group_id,
        'sha256:' || encode(sha256(convert_to('[' || string_agg(e.text, ',' ORDER BY e.role, e.step_key COLLATE "C",
            e.sub_group_key COLLATE "C", e.path COLLATE "C", e.checksum) FILTER (WHERE e.if_taken)
            || ']', 'UTF8')), 'hex') AS with_taken,
        'sha256:' || encode(sha256(convert_to('[' || string_agg(e.text, ',' ORDER BY e.role, e.step_key COLLATE "C",
            e.sub_group_key COLLATE "C", e.path COLLATE "C", e.checksum) FILTER (WHERE e.if_mixed)
            || ']', 'UTF8')), 'hex') AS with_mixed
    FROM entry e
    GROUP BY e.sub_group_id
),
lost AS (
    SELECT DISTINCT t.sub_group_id FROM taken t JOIN invalid i ON i.id = t.data_product_id
),
damaged AS (
    SELECT DISTINCT run_id FROM invalid
),
-- Sub-groups of which the newest run does not cover all packages.
outgrown AS (
    SELECT DISTINCT s.id AS sub_group_id
    FROM scope s
    JOIN sub_group_package m ON m.sub_group_id = s.id
    LEFT JOIN run_coverage c ON c.run_id = s.last_run_id AND c.raw_data_package_id = m.raw_data_package_id
    WHERE s.last_run_id IS NOT NULL AND NOT m.is_faded AND m.left_out IS NULL AND c.run_id IS NULL
),
state AS MATERIALIZED (
    SELECT s.id, lost.sub_group_id IS NOT NULL AS lost_auxiliary,
        s.last_run_id IS NOT NULL AND coalesce(d.with_taken, :no_inputs) = s.input_digest AS only_auxiliary,
        s.last_run_id IS NOT NULL AND s.same_recipe AND NOT s.is_forced
        AND coalesce(d.with_mixed, :no_inputs) = s.input_digest
        AND s.id NOT IN (SELECT sub_group_id FROM untaken)
        AND lost.sub_group_id IS NULL AND damaged.run_id IS NULL AND outgrown.sub_group_id IS NULL AS keeps
    FROM scope s
    LEFT JOIN digest d ON d.sub_group_id = s.id
    LEFT JOIN lost ON lost.sub_group_id = s.id
    LEFT JOIN damaged ON damaged.run_id = s.last_run_id
    LEFT JOIN outgrown ON outgrown.sub_group_id = s.id
),
wanted AS MATERIALIZED (
    SELECT m.* FROM mixed m JOIN state s ON s.id = m.sub_group_id WHERE s.keeps
    UNION
    SELECT n.* FROM nearest n JOIN state s ON s.id = n.sub_group_id WHERE NOT s.keeps
),
gone AS (
    DELETE FROM auxiliary_choice a USING scope s
    WHERE a.sub_group_id = s.id
      AND (a.sub_group_id, a.name, a.data_product_id) NOT IN (SELECT * FROM wanted)
    RETURNING a.sub_group_id
),
new AS (
    INSERT INTO auxiliary_choice (sub_group_id, name, data_product_id, reduction_step_id)
    SELECT w.sub_group_id, w.name, w.data_product_id, :step
    FROM wanted w
    ON CONFLICT DO NOTHING
    RETURNING sub_group_id
),
noted AS (
    UPDATE sub_group g
    SET only_auxiliary = s.only_auxiliary, lost_auxiliary = s.lost_auxiliary
    FROM state s
    WHERE g.id = s.id AND (g.only_auxiliary, g.lost_auxiliary) <> (s.only_auxiliary, s.lost_auxiliary)
    RETURNING g.id
)
SELECT count(*) FROM (
    SELECT 1 FROM gone UNION ALL SELECT 1 FROM new UNION ALL SELECT 1 FROM noted UNION ALL SELECT 1 FROM lacking
) AS written
