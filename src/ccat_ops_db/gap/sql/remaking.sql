-- Runs that repeat the newest ones of sub-groups of a step, with the inputs of these; how many.
WITH made AS (
    INSERT INTO executed_reduction_step (
        reduction_step_id, step_revision_id, pipeline_id, data_location_id, priority, software_version_id,
        config_revision_id, recipe_digest, series_digest, input_digest, packages_until, inputs_frozen_at,
        sub_group_key, sub_group_path, sub_group_labels, reason, because, trigger_id)
    SELECT l.reduction_step_id, :revision, :pipeline, :location, :priority,
        CASE WHEN v.state = 'released' THEN v.id ELSE :version END,
        CASE WHEN v.state = 'released' THEN l.config_revision_id ELSE :config END,
        CASE WHEN v.state = 'released' THEN l.recipe_digest ELSE :recipe END,
        CASE WHEN v.state = 'released' THEN l.series_digest ELSE :series END,
        l.input_digest, l.packages_until, :now, u.key, u.path, u.labels, 'recompute',
        format('products of run %s were deleted, and run %s takes them', l.id, given.taker_id),
        (SELECT t.trigger_id FROM executed_reduction_step t WHERE t.id = given.taker_id)
    FROM unnest(:ids, :takers) AS given (id, taker_id)
    JOIN sub_group u ON u.id = given.id AND u.reduction_step_id = :step
    JOIN executed_reduction_step l ON l.id = u.last_run_id
    JOIN reduction_software_version v ON v.id = l.software_version_id
    ORDER BY u.id
    ON CONFLICT DO NOTHING
    RETURNING id, reduction_step_id, sub_group_key, trigger_id
),
repeated AS (
    SELECT made.id, made.sub_group_key, made.trigger_id, u.last_run_id
    FROM made JOIN sub_group u ON u.reduction_step_id = made.reduction_step_id AND u.key = made.sub_group_key
),
taken AS (
    INSERT INTO run_input (run_id, role, name, raw_data_package_id, data_product_id, excluded_pixels)
    SELECT r.id, i.role, i.name, i.raw_data_package_id, i.data_product_id, i.excluded_pixels
    FROM repeated r JOIN run_input i ON i.run_id = r.last_run_id
),
covered AS (
    INSERT INTO run_coverage (run_id, raw_data_package_id, is_excess)
    SELECT r.id, c.raw_data_package_id, c.is_excess FROM repeated r JOIN run_coverage c ON c.run_id = r.last_run_id
),
-- What follows from it belongs to the trigger that the run belongs to which it is made for.
asked AS (
    INSERT INTO run_request (reduction_step_id, sub_group_key, trigger_id, is_forced, created_at, run_id)
    SELECT made.reduction_step_id, made.sub_group_key, t.id, false, t.created_at, made.id
    FROM made JOIN trigger t ON t.id = made.trigger_id
),
noted AS (
    UPDATE sub_group g SET active_run_id = made.id
    FROM made WHERE g.reduction_step_id = made.reduction_step_id AND g.key = made.sub_group_key
)
SELECT count(*) FROM made
