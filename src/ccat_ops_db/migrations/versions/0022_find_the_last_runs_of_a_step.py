"""The runs that a step began last with a version of its software are found whatever their number."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_RUN = "executed_reduction_step"
_BY_VERSION, _BY_VERSION_AND_STEP = f"ix_{_RUN}_software_version_id", f"ix_{_RUN}_version_step"


def upgrade() -> None:
    op.create_index(_BY_VERSION_AND_STEP, _RUN, ["software_version_id", "reduction_step_id", "inputs_frozen_at"])
    op.drop_index(_BY_VERSION, _RUN)  # what it found is found by the other


def downgrade() -> None:
    op.create_index(_BY_VERSION, _RUN, ["software_version_id"])
    op.drop_index(_BY_VERSION_AND_STEP, _RUN)
