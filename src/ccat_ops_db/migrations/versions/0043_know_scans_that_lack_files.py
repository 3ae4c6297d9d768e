"""Scans that were told to have more raw files than came are found without counting the files of all others."""

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None

_SCAN = "executed_obs_unit"
_INDEX = f"ix_{_SCAN}_lacks_files"


def upgrade() -> None:
    comment = "Whether fewer raw files were registered than it was told to have, when this was last asked."
    op.add_column(
        _SCAN, sa.Column("lacks_files", sa.Boolean(), nullable=False, server_default=sa.false(), comment=comment)
    )
    op.execute(
        "UPDATE executed_obs_unit e SET lacks_files = true "
        "WHERE e.expected_files > (SELECT count(*) FROM raw_data_file f WHERE f.executed_obs_unit_id = e.id)"
    )
    op.create_index(_INDEX, _SCAN, ["id"], postgresql_where=sa.text("lacks_files"))


def downgrade() -> None:
    op.drop_index(_INDEX, table_name=_SCAN)
    op.drop_column(_SCAN, "lacks_files")
