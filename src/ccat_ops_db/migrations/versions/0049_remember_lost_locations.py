"""That a location is lost is remembered, so that what was lost with it can be told from what was found bad there."""

import sqlalchemy as sa
from alembic import op

revision = "0049"
down_revision = "0045"
branch_labels = None
depends_on = None

_LOCATION = "data_location"
_CHECK = "what_is_lost_takes_nothing"


def upgrade() -> None:
    moment = sa.TIMESTAMP(timezone=True)
    when = "When a person said that it is lost with all that it had; NULL: it is not, or is used anew."
    op.add_column(_LOCATION, sa.Column("lost_at", moment, nullable=True, comment=when))
    op.create_check_constraint(op.f(f"ck_{_LOCATION}_{_CHECK}"), _LOCATION, "lost_at IS NULL OR NOT active")


def downgrade() -> None:
    op.drop_constraint(op.f(f"ck_{_LOCATION}_{_CHECK}"), _LOCATION)
    op.drop_column(_LOCATION, "lost_at")
