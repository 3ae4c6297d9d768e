"""Of a run it is noted which packages went in though its sub-group does not have them."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_COMMENT = "Whether its sub-group did not have it, and it came with products."


def upgrade() -> None:
    op.add_column(
        "run_coverage",
        sa.Column("is_excess", sa.Boolean(), server_default=sa.false(), nullable=False, comment=_COMMENT),
    )
    op.execute(  # what sub-groups had then is not kept; what another has now was hardly of this one
        """
        UPDATE run_coverage c SET is_excess = true
        FROM executed_reduction_step r, sub_group g, sub_group_package m
        WHERE r.id = c.run_id AND m.reduction_step_id = r.reduction_step_id
          AND m.raw_data_package_id = c.raw_data_package_id AND g.id = m.sub_group_id AND g.key <> r.sub_group_key
          AND NOT EXISTS (
            SELECT FROM run_input i WHERE i.run_id = c.run_id AND i.raw_data_package_id = c.raw_data_package_id)
          AND EXISTS (SELECT FROM sub_group same WHERE same.reduction_step_id = r.reduction_step_id
                        AND same.key = r.sub_group_key)
        """
    )


def downgrade() -> None:
    op.drop_column("run_coverage", "is_excess")
