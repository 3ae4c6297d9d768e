"""A person may say of an archived package too that it is gone, if no copy is left; one that comes back ends that."""

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None

_PACKAGE = "raw_data_package"
_INDEX = f"ix_{_PACKAGE}_given_up"
_BEFORE = ("what_failed_is_given_up", "given_up_at IS NULL OR state = 'failed'")
_NOW = ("what_is_gone_is_given_up", "given_up_at IS NULL OR state IN ('failed', 'archived')")
_SAID_BEFORE = "When a person said that it is gone for good; NULL: it is to be mended, or did not fail."
_SAID_NOW = "When a person said that it is gone for good; NULL: it is there, or to be mended."


def upgrade() -> None:
    _change(_BEFORE, _NOW)
    op.alter_column(_PACKAGE, "given_up_at", comment=_SAID_NOW)
    op.create_index(_INDEX, _PACKAGE, ["id"], postgresql_where=sa.text("given_up_at IS NOT NULL"))
    op.execute(
        "CREATE OR REPLACE FUNCTION take_up_package_of_copy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE raw_data_package SET given_up_at = NULL, given_up_because = NULL "
        "WHERE id = NEW.raw_data_package_id AND state = 'archived' AND given_up_at IS NOT NULL; RETURN NULL; END $$"
    )
    op.execute(
        "CREATE TRIGGER take_up_package_of_copy AFTER UPDATE OF status ON physical_copy FOR EACH ROW "
        "WHEN (NEW.status = 'present' AND OLD.status <> 'present' AND NEW.raw_data_package_id IS NOT NULL) "
        "EXECUTE FUNCTION take_up_package_of_copy()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER take_up_package_of_copy ON physical_copy")
    op.execute("DROP FUNCTION take_up_package_of_copy()")
    op.drop_index(_INDEX, table_name=_PACKAGE)
    op.alter_column(_PACKAGE, "given_up_at", comment=_SAID_BEFORE)
    op.execute("UPDATE raw_data_package SET given_up_at = NULL, given_up_because = NULL WHERE state = 'archived'")
    _change(_NOW, _BEFORE)


def _change(before: tuple[str, str], now: tuple[str, str]) -> None:
    op.drop_constraint(op.f(f"ck_{_PACKAGE}_{before[0]}"), _PACKAGE)
    op.create_check_constraint(op.f(f"ck_{_PACKAGE}_{now[0]}"), _PACKAGE, now[1])
