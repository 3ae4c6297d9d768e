-- Copies outside of archives that were found damaged or gone: what is to be archived, or was, counts as safe once an
-- archive has verified it, as long as anybody may want it.
damaged AS (
    SELECT c.id, c.data_location_id, c.kind, c.size_bytes, c.due_at,
        coalesce(c.obstacle, CASE
            WHEN d.state = 'current' AND c.kind IN ('product', 'recomputable') THEN 'made_anew'
            WHEN d.state IN ('current', 'superseded')
              AND (s.archive OR EXISTS (
                SELECT FROM physical_copy a
                JOIN archive l ON l.id = a.data_location_id
                WHERE a.data_product_id = d.id AND a.status <> 'deleted'))
              AND NOT EXISTS (
                SELECT FROM physical_copy a
                JOIN archive l ON l.id = a.data_location_id AND NOT l.is_away
                WHERE a.data_product_id = d.id AND a.status = 'present' AND a.verified_at IS NOT NULL)
                THEN 'last_sound_copy'
        END) AS obstacle
    FROM copy c
    JOIN physical_copy o ON o.id = c.id
    LEFT JOIN data_product d ON d.id = o.data_product_id
    LEFT JOIN executed_reduction_step r ON r.id = d.run_id
    LEFT JOIN reduction_step_revision s ON s.id = r.step_revision_id
    WHERE c.kind IN ('buffer', 'staged', 'product', 'recomputable')
)
