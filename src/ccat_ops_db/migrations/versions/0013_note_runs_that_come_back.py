"""A run that is PENDING again is looked at: its sub-group may have done without it meanwhile."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_RUN = "executed_reduction_step"
_ACTIVE = """({row}.status IN ('pending', 'staging_data', 'submitted', 'running', 'collecting_results')
    OR ({row}.status = 'failed' AND {row}.retry_at IS NOT NULL))"""
_NOTED = """NOT NEW.is_trial AND (
    (OLD.status <> NEW.status AND NEW.status IN ({noted})) OR {before} <> {after})"""


def _note_runs(*noted: str) -> None:
    """Have the end of runs, and whatever else is named, noted as changes of their sub-groups."""
    listed = ", ".join(f"'{status}'" for status in noted)
    condition = _NOTED.format(noted=listed, before=_ACTIVE.format(row="OLD"), after=_ACTIVE.format(row="NEW"))
    op.execute(f"DROP TRIGGER note_{_RUN}_update ON {_RUN}")
    op.execute(
        f"CREATE TRIGGER note_{_RUN}_update AFTER UPDATE OF status, retry_at ON {_RUN} "
        f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION note_run()"
    )


def upgrade() -> None:
    _note_runs("completed", "failed", "cancelled", "pending")


def downgrade() -> None:
    _note_runs("completed", "failed", "cancelled")
