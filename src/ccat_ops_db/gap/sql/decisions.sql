-- What is to be done about each sub-group, and why. The questions come in the order of their weight: is a run necessary,
-- was it given up, does it rest, does it wait.
-- Where inputs differ from those of the newest run: in what.
difference AS MATERIALIZED (
    SELECT f.id, fresh.has_new, fresh.since AS fresh_since,
        cardinality(:upstream) > 0 AND EXISTS (
            SELECT FROM sub_group_package m
            JOIN sub_group_package above
                ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
            JOIN sub_group u ON u.id = above.sub_group_id
            JOIN executed_reduction_step made ON made.id = u.last_run_id
            WHERE m.sub_group_id = f.id AND NOT m.is_faded AND m.left_out IS NULL AND NOT above.is_faded
              AND made.made_digest IS NOT NULL
              AND NOT EXISTS (
                SELECT FROM run_input i JOIN data_product d ON d.id = i.data_product_id
                JOIN executed_reduction_step maker ON maker.id = d.run_id
                WHERE i.run_id = f.last_run_id AND maker.made_digest = made.made_digest)
        ) AS has_newer,
        -- Packages are gone, each because of a relative time only.
        :fades AND coalesce((
            SELECT bool_and(coalesce(m.is_faded, false))
            FROM run_coverage c
            LEFT JOIN sub_group_package m
                ON m.reduction_step_id = :step AND m.raw_data_package_id = c.raw_data_package_id
            WHERE c.run_id = f.last_run_id AND (m.sub_group_id IS DISTINCT FROM f.id OR m.is_faded)
        ), false) AS has_faded,
        -- Products of types that only some steps take are not in what runs are said to have made.
        :lists AND NOT EXISTS (
            SELECT FROM run_coverage c
            LEFT JOIN sub_group_package m
                ON m.reduction_step_id = :step AND m.raw_data_package_id = c.raw_data_package_id
            WHERE c.run_id = f.last_run_id AND NOT c.is_excess AND m.sub_group_id IS DISTINCT FROM f.id
        ) AS has_other_listed,
        :takes_raw AND EXISTS (
            SELECT FROM sub_group_package m
            JOIN run_input i ON i.run_id = f.last_run_id AND i.raw_data_package_id = m.raw_data_package_id
            WHERE m.sub_group_id = f.id AND NOT m.is_faded AND m.left_out IS NULL
              AND m.excluded_pixels IS DISTINCT FROM i.excluded_pixels
        ) AS has_other_pixels
    FROM fact f
    CROSS JOIN LATERAL (
        SELECT coalesce(bool_or(m.left_out IS NULL), false) AS has_new,
            min(m.archived_at) FILTER (WHERE m.left_out IS DISTINCT FROM 'omitted') AS since
        FROM sub_group_package m
        WHERE m.sub_group_id = f.id AND NOT m.is_faded AND NOT EXISTS (
            SELECT FROM run_coverage c
            WHERE c.run_id = f.last_run_id AND c.raw_data_package_id = m.raw_data_package_id)
    ) fresh
    WHERE f.is_there AND f.last_run_id IS NOT NULL AND NOT f.same_inputs
),
gap AS MATERIALIZED (
    SELECT f.*, d.fresh_since,
        CASE
            WHEN f.last_run_id IS NULL OR f.is_damaged OR NOT coalesce(f.same_recipe, :recipe IS NULL) THEN 'none'
            WHEN f.same_inputs THEN 'all'
            WHEN f.lost_auxiliary OR d.has_other_pixels THEN 'none'
            WHEN d.has_new OR d.has_faded THEN 'covered'
            ELSE 'none'
        END AS readiness,
        CASE
            WHEN NOT f.is_there OR :recipe IS NULL THEN NULL
            WHEN f.last_run_id IS NULL THEN 'missing'
            WHEN NOT f.same_recipe THEN 'recipe_changed'
            WHEN f.is_damaged THEN 'invalidated'
            WHEN d.has_new OR d.has_other_pixels THEN 'inputs_changed'
            WHEN d.has_newer THEN 'upstream_changed'
            WHEN NOT f.same_inputs AND f.only_auxiliary THEN 'auxiliary_changed'
            WHEN NOT f.same_inputs AND NOT f.lost_auxiliary AND d.has_other_listed THEN 'upstream_changed'
            WHEN NOT f.same_inputs AND (f.lost_auxiliary OR NOT d.has_faded) THEN 'inputs_changed'
            WHEN f.is_forced THEN 'requested'
        END AS reason
    FROM fact f LEFT JOIN difference d ON d.id = f.id
    WHERE NOT f.is_settled
),
-- Where a run is necessary: what was tried since the newest completed run, that one included.
tried AS MATERIALIZED (
    SELECT g.*, t.run_ids, t.latest_at,
        CASE WHEN t.newest_id = g.last_run_id THEN g.last_created_at ELSE newest.created_at END AS newest_at,
        t.newest_id IS NOT NULL AND NOT CASE
            WHEN t.newest_id = g.last_run_id THEN g.same_recipe ELSE newest.recipe_digest = :recipe END AS is_untried,
        CASE WHEN alike.created_at > coalesce(g.requested_at, '-infinity') THEN NULLIF(alike.status, 'completed') END
            AS abandoned
    FROM gap g
    LEFT JOIN LATERAL (
        SELECT array_agg(r.id) FILTER (WHERE r.is_since) AS run_ids, max(r.id) FILTER (WHERE r.is_since) AS newest_id,
            max(r.created_at) FILTER (WHERE r.is_since) AS latest_at,
            max(r.id) FILTER (WHERE r.recipe_digest = :recipe AND r.input_digest = g.input_digest) AS alike_id
        FROM (
            SELECT r.*, r.id >= coalesce(g.last_run_id, 0) AS is_since
            FROM executed_reduction_step r
            WHERE r.reduction_step_id = :step AND r.sub_group_key = g.key AND NOT r.is_trial
              AND (r.status = 'completed' OR (r.status = 'failed' AND r.retry_at IS NULL AND NOT r.not_needed)
                   OR (r.status = 'cancelled' AND NOT r.not_needed))
        ) r
    ) t ON true
    LEFT JOIN executed_reduction_step newest ON newest.id = NULLIF(t.newest_id, g.last_run_id)
    LEFT JOIN executed_reduction_step alike ON alike.id = t.alike_id
    WHERE g.reason IS NOT NULL
),
-- A run waits for what was there when the rest ended, which began with the first change or with the run before; the first
-- run of all also for what was there when it was defined. A recipe that no run has tried yet does not rest. Nor does what
-- a trigger wants: that waits for what was there when it was wanted. What waits for a trigger is as if that came now.
timed AS MATERIALIZED (
    SELECT t.id, t.reason, t.readiness, t.abandoned, coalesce(t.requested_at, CASE
        WHEN NOT :rests THEN NULL
        WHEN t.is_untried THEN greatest(:since, t.newest_at)
        WHEN t.run_ids IS NULL AND r.rested IS NOT NULL THEN greatest(:since, r.rested)
        ELSE r.rested END) AS cut_off
    FROM tried t
    LEFT JOIN LATERAL (
        SELECT greatest(t.latest_at, least(
            CASE WHEN t.run_ids = ARRAY[t.last_run_id] AND NOT t.same_inputs THEN t.fresh_since ELSE (
             SELECT min(m.archived_at) FROM sub_group_package m
             WHERE m.sub_group_id = t.id AND NOT m.is_faded AND m.left_out IS DISTINCT FROM 'omitted' AND NOT EXISTS (
                SELECT FROM run_coverage c
                WHERE c.run_id = ANY(t.run_ids) AND c.raw_data_package_id = m.raw_data_package_id)) END,
            -- A sub-group upstream of which none of ours was in before came with its package, whenever it was made.
            CASE WHEN cardinality(:upstream) > 0 THEN (
             SELECT min(coalesce(made.finished_at, made.created_at))
             FROM sub_group_package m
             JOIN sub_group_package above
                ON above.reduction_step_id = ANY(:upstream) AND above.raw_data_package_id = m.raw_data_package_id
             JOIN sub_group u ON u.id = above.sub_group_id
             JOIN executed_reduction_step made ON made.id = u.last_run_id
             WHERE m.sub_group_id = t.id AND NOT m.is_faded AND m.left_out IS NULL AND NOT above.is_faded
               AND made.made_digest IS NOT NULL
               AND NOT EXISTS (
                SELECT FROM run_input i JOIN data_product d ON d.id = i.data_product_id
                JOIN executed_reduction_step maker ON maker.id = d.run_id
                WHERE i.run_id = ANY(t.run_ids) AND maker.made_digest = made.made_digest)
               AND EXISTS (
                SELECT FROM sub_group_package theirs
                JOIN run_coverage c ON c.raw_data_package_id = theirs.raw_data_package_id
                WHERE theirs.sub_group_id = u.id AND NOT theirs.is_faded AND c.run_id = ANY(t.run_ids))) END,
            -- So did a calibration, for a package that was not in before.
            CASE WHEN cardinality(:redoing) > 0 THEN (
             SELECT min(coalesce(made.finished_at, made.created_at))
             FROM auxiliary_nearest n
             JOIN executed_reduction_step made ON made.id = n.run_id
             JOIN run_coverage c ON c.run_id = ANY(t.run_ids) AND c.raw_data_package_id = n.raw_data_package_id
             WHERE n.sub_group_id = t.id AND n.name = ANY(:redoing) AND NOT EXISTS (
                SELECT FROM run_input i JOIN data_product d ON d.id = i.data_product_id
                JOIN executed_reduction_step maker ON maker.id = d.run_id
                WHERE i.run_id = ANY(t.run_ids) AND maker.made_digest = made.made_digest)) END
        )) + :cooldown AS rested
    ) r ON :rests AND t.is_untried IS NOT TRUE AND t.requested_at IS NULL
),
asked AS MATERIALIZED (
    SELECT g.id, g.last_run_id, g.active_run_id, g.input_digest, g.is_there, g.readiness, g.reason, g.is_forced,
        t.abandoned, t.cut_off,
        g.reason IS NOT NULL AND cardinality(:failing) > 0 AND EXISTS (
            SELECT FROM auxiliary_nearest n
            WHERE n.sub_group_id = g.id AND n.run_id IS NULL AND n.name = ANY(:failing)) AS is_lacking,
        g.is_there AND (
            CASE WHEN :takes_available THEN (
                SELECT count(*) FILTER (WHERE m.left_out IS NULL) < :min_fraction * count(*)
                FROM sub_group_package m
                WHERE m.sub_group_id = g.id AND NOT m.is_faded AND m.left_out IS DISTINCT FROM 'omitted'
                  AND (t.cut_off IS NULL OR m.archived_at <= t.cut_off)
            ) ELSE g.held_since <= coalesce(t.cut_off, 'infinity') END
            OR :for_scan AND g.reason IS NOT NULL AND EXISTS (
                SELECT FROM sub_group_package m
                JOIN raw_data_package p ON p.id = m.raw_data_package_id
                JOIN executed_obs_unit s ON s.id = p.executed_obs_unit_id
                WHERE m.sub_group_id = g.id AND NOT m.is_faded AND (
                    EXISTS (SELECT FROM raw_data_package other
                            WHERE other.executed_obs_unit_id = s.id AND other.state <> 'archived'
                              AND other.excluded_at IS NULL AND other.withdrawn_at IS NULL
                              AND NOT EXISTS (
                                SELECT FROM accepted_coverage a JOIN accepted_package p ON p.accepted_coverage_id = a.id
                                WHERE a.reduction_step_id = :step AND a.sub_group_key = g.key
                                  AND p.raw_data_package_id = other.id))
                    OR (s.ended_at IS NULL
                        OR EXISTS (SELECT FROM raw_data_file f
                                   WHERE f.executed_obs_unit_id = s.id AND f.raw_data_package_id IS NULL AND f.lost_at IS NULL)
                        OR s.expected_files > (
                            SELECT count(*) FROM raw_data_file f WHERE f.executed_obs_unit_id = s.id))
                    AND NOT EXISTS (SELECT FROM accepted_coverage a
                                    WHERE a.reduction_step_id = :step AND a.sub_group_key = g.key)))
            OR g.reason IS NOT NULL AND cardinality(:waiting) > 0 AND EXISTS (
                SELECT FROM auxiliary_nearest n
                WHERE n.sub_group_id = g.id AND n.run_id IS NULL AND n.name = ANY(:waiting))
            -- Nothing is left to be taken.
            OR g.input_digest = :no_inputs AND EXISTS (
                SELECT FROM sub_group_package m
                WHERE m.sub_group_id = g.id AND NOT m.is_faded AND m.left_out IS NOT NULL)
        ) AS is_blocked
    FROM gap g LEFT JOIN timed t ON t.id = g.id
),
verdict AS (
    SELECT a.*,
        CASE
            WHEN NOT a.is_there THEN 'up_to_date'
            WHEN :recipe IS NULL THEN 'blocked'
            WHEN a.abandoned IS NOT NULL THEN a.abandoned
            WHEN a.cut_off > :now THEN 'cooling'
            WHEN a.is_blocked THEN 'blocked'
            WHEN a.is_lacking THEN 'failed'
            WHEN a.reason IS NULL THEN 'up_to_date'
            ELSE 'wanted'
        END AS verdict
    FROM asked a
),
decision AS (
    SELECT v.id, v.last_run_id, v.active_run_id, v.input_digest, v.reason, v.cut_off, v.verdict,
        -- What is made again in any case is waited for.
        CASE WHEN v.is_forced AND (v.verdict = 'wanted' OR v.active_run_id IS NOT NULL) THEN 'none' ELSE v.readiness END
            AS readiness
    FROM verdict v
)
