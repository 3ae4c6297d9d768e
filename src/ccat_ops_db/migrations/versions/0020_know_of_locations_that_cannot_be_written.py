"""Workers write down whether their locations are there and can be written, and people are told where not."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_LOCATION = "data_location"
_NEW = "unusable_location"
_KINDS = ("failed_for_good", "dead_service", "full_disk", _NEW, "backlog")


def _allow(*kinds: str) -> None:
    name = op.f("ck_alert_alertkind")
    op.drop_constraint(name, "alert")
    op.create_check_constraint(name, "alert", sa.column("kind").in_(kinds))


def _require_moment(condition: str) -> None:
    name = op.f("ck_data_location_space_has_a_moment")
    op.drop_constraint(name, _LOCATION)
    op.create_check_constraint(name, _LOCATION, condition)


def upgrade() -> None:
    _allow(*_KINDS)
    op.add_column(
        _LOCATION,
        sa.Column("trouble", sa.Text(), nullable=True, comment="Why a worker there could not write; NULL: it could."),
    )
    _require_moment("(free_bytes IS NULL AND trouble IS NULL) = (space_checked_at IS NULL)")


def downgrade() -> None:
    op.execute("UPDATE data_location SET trouble = NULL, space_checked_at = NULL WHERE free_bytes IS NULL")
    _require_moment("(free_bytes IS NULL) = (space_checked_at IS NULL)")
    op.drop_column(_LOCATION, "trouble")
    op.execute(f"DELETE FROM alert WHERE kind = '{_NEW}'")  # noqa: S608 - a word of ours
    _allow(*(kind for kind in _KINDS if kind != _NEW))
