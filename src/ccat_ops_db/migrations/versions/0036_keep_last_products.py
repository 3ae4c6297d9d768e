"""Keep the last sound copy of a product that is to be archived, and let copies be lost one after the other."""

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

# Of a product that counts and whose step has it archived the last verified copy is kept, and that in an archive for as
# long as no other archive has one. Whoever lets one go holds the product.
_KEEP_PRODUCTS = """
CREATE OR REPLACE FUNCTION keep_last_products() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_archived boolean := (
        SELECT l.location_type = 'long_term_archive' FROM data_location l WHERE l.id = OLD.data_location_id);
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'Copies are deleted in transactions that are READ COMMITTED: nobody else would be seen here.'
            USING ERRCODE = 'feature_not_supported';
    END IF;
    PERFORM FROM data_product d WHERE d.id = NEW.data_product_id FOR NO KEY UPDATE;
    IF EXISTS (
        SELECT FROM data_product d
        JOIN executed_reduction_step r ON r.id = d.run_id
        JOIN reduction_step_revision s ON s.id = r.step_revision_id
        WHERE d.id = NEW.data_product_id AND d.state = 'current' AND s.archive
    ) AND NOT EXISTS (
        SELECT FROM physical_copy a
        JOIN data_location l ON l.id = a.data_location_id
        WHERE a.data_product_id = NEW.data_product_id AND a.id <> OLD.id AND a.status = 'present'
          AND a.verified_at IS NOT NULL AND (l.location_type = 'long_term_archive' OR NOT is_archived)
    ) THEN
        RAISE EXCEPTION 'Copy % is kept: product % would have no verified copy% then.',
            OLD.id, NEW.data_product_id, CASE WHEN is_archived THEN ' in an archive' ELSE '' END
            USING ERRCODE = 'check_violation', CONSTRAINT = 'last_products_are_kept', TABLE = 'physical_copy',
            HINT = '`ccat retention plan` shows what may go and what is kept.';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER keep_last_products BEFORE UPDATE OF status ON physical_copy FOR EACH ROW WHEN (
    NEW.data_product_id IS NOT NULL AND (
        NEW.status = 'deletion_in_progress' AND OLD.status <> 'deletion_in_progress'
        OR NEW.status = 'deleted' AND OLD.status NOT IN ('writing', 'corrupt', 'missing', 'deletion_in_progress', 'deleted')))
EXECUTE FUNCTION keep_last_products();
"""
# Whoever lets a copy go holds what it is of, and counts the others: so does whoever finds one of these bad meanwhile.
_LOSE_IN_TURN = """
CREATE OR REPLACE FUNCTION lose_copies_in_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM raw_data_package p WHERE p.id = NEW.raw_data_package_id FOR NO KEY UPDATE;
    PERFORM FROM data_product d WHERE d.id = NEW.data_product_id FOR NO KEY UPDATE;
    RETURN NEW;
END $$;

CREATE TRIGGER lose_copies_in_turn BEFORE UPDATE OF status ON physical_copy FOR EACH ROW WHEN (
    NEW.status IN ('corrupt', 'missing') AND OLD.status NOT IN ('corrupt', 'missing')
    AND (NEW.raw_data_package_id IS NOT NULL OR NEW.data_product_id IS NOT NULL))
EXECUTE FUNCTION lose_copies_in_turn();
"""


def upgrade() -> None:
    op.execute(_KEEP_PRODUCTS)
    op.execute(_LOSE_IN_TURN)


def downgrade() -> None:
    for name in ("keep_last_products", "lose_copies_in_turn"):
        op.execute(f"DROP TRIGGER {name} ON physical_copy")
        op.execute(f"DROP FUNCTION {name}()")
