"""A person may say that a raw file is lost: its package is built of the rest, and says so."""

import sqlalchemy as sa
from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None

_FILE = "raw_data_file"
_INDEX = f"ix_{_FILE}_lost_from_id"
_CHECKS = {
    "loss_is_told_as_a_whole": "num_nulls(lost_at, lost_because, lost_from_id) IN (0, 3)",
    "what_is_lost_is_in_no_package": "lost_at IS NULL OR raw_data_package_id IS NULL",
}


def upgrade() -> None:
    moment = sa.TIMESTAMP(timezone=True)
    when = "When a person said that it is lost; NULL: it is not."
    op.add_column(_FILE, sa.Column("lost_at", moment, nullable=True, comment=when))
    op.add_column(
        _FILE, sa.Column("lost_because", sa.Text(), nullable=True, comment="How it was lost, and who said so.")
    )
    package = "Package that held it, and was built without it."
    op.add_column(_FILE, sa.Column("lost_from_id", sa.BigInteger(), nullable=True, comment=package))
    op.create_foreign_key(op.f(f"fk_{_FILE}_lost_from_id"), _FILE, "raw_data_package", ["lost_from_id"], ["id"])
    op.create_index(_INDEX, _FILE, ["lost_from_id"], postgresql_where=sa.text("lost_from_id IS NOT NULL"))
    for name, rule in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_{_FILE}_{name}"), _FILE, rule)


def downgrade() -> None:
    for name in reversed(_CHECKS):
        op.drop_constraint(op.f(f"ck_{_FILE}_{name}"), _FILE)
    op.drop_index(_INDEX, table_name=_FILE)
    for column in ("lost_from_id", "lost_because", "lost_at"):
        op.drop_column(_FILE, column)
