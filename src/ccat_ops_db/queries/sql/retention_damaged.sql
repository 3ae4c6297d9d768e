-- Copies outside of archives that were found damaged or gone: a product counts as safe once an archive has verified it.
damaged AS (
    SELECT c.id, c.data_location_id, c.kind, c.size_bytes, c.due_at,
        coalesce(c.obstacle, CASE
            WHEN d.state = 'current' AND c.kind IN ('product', 'recomputable') THEN 'made_anew'
            WHEN d.id IS NOT NULL AND NOT EXISTS (
                SELECT FROM physical_copy a
                JOIN archive l ON l.id = a.data_location_id AND NOT l.is_away
                WHERE a.data_product_id = d.id AND a.status = 'present' AND a.verified_at IS NOT NULL)
                THEN 'last_sound_copy'
        END) AS obstacle
    FROM copy c
    JOIN physical_copy o ON o.id = c.id
    LEFT JOIN data_product d ON d.id = o.data_product_id
    WHERE c.kind IN ('buffer', 'staged', 'product', 'recomputable')
)
