"""Pipelines are told when a product cannot be had from a copy any more, and repairs that failed are found.

The first is when it is let go, and not once it is gone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

_REPAIRS = "ix_staging_job_failed_repair"
_LOST = "({row}.status IN ('corrupt', 'missing'))"
_SOUND = "({row}.status IN ('present', 'deletion_possible', 'deletion_scheduled'))"
_SOUND_BEFORE = (
    "CASE WHEN {row}.status IN ('corrupt', 'missing') THEN false WHEN {row}.status <> 'deleted' THEN true END"
)


def _differs(what: str) -> str:
    return f"{what.format(row='OLD')} IS DISTINCT FROM {what.format(row='NEW')}"


def _tell(*, changes: str, arrives: str) -> None:
    """What changes is told of always; what arrives where something is damaged that it can stand in for."""
    for name, when, function in (("update", changes, "note_copy"), ("arrival", arrives, "note_other_copy")):
        op.execute(f"DROP TRIGGER note_physical_copy_{name} ON physical_copy")
        op.execute(
            f"CREATE TRIGGER note_physical_copy_{name} AFTER UPDATE OF status ON physical_copy FOR EACH ROW "
            f"WHEN (NEW.data_product_id IS NOT NULL AND ({when})) EXECUTE FUNCTION {function}()"
        )


def upgrade() -> None:
    was, now = _SOUND.format(row="OLD"), _SOUND.format(row="NEW")
    _tell(changes=f"{_differs(_LOST)} OR {was} AND NOT {now}", arrives=f"NOT {was} AND {now}")
    op.create_index(_REPAIRS, "staging_job", ["id"], postgresql_where=sa.text("is_repair AND status = 'failed'"))


def downgrade() -> None:
    op.drop_index(_REPAIRS, "staging_job")
    _tell(changes=_differs(_SOUND_BEFORE), arrives="OLD.status = 'writing' AND NEW.status = 'present'")
