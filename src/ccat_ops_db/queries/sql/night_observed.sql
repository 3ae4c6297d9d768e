-- What was observed in a night, by instrument and source; a scan of which no file is registered yet has no instrument.
SELECT i.name AS instrument, s.name AS source, count(DISTINCT e.id) AS scans, count(f.id) AS files,
    coalesce(sum(f.size_bytes), 0)::bigint AS size_bytes
FROM executed_obs_unit e
JOIN obs_unit u ON u.id = e.obs_unit_id
JOIN source s ON s.id = u.source_id
LEFT JOIN raw_data_file f ON f.executed_obs_unit_id = e.id
LEFT JOIN instrument_module m ON m.id = f.instrument_module_id
LEFT JOIN instrument i ON i.id = m.instrument_id
WHERE e.observing_night = :night
GROUP BY i.name, s.name
ORDER BY count(DISTINCT e.id) DESC, i.name, s.name
