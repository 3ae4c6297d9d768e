"""What is wanted of a sub-group while a run of it with other inputs is under way is asked for besides, and not lost with that run.

What chose a calibration by a rule is found by the run that made it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_PLACE = ["reduction_step_id", "sub_group_key"]
_NUMBER = "Number made by the database."
_COMMENT = "The run that carries it out, once there is one."


def upgrade() -> None:
    op.drop_constraint(op.f("pk_run_request"), "run_request", type_="primary")
    number = sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment=_NUMBER)
    op.add_column("run_request", number)
    op.create_primary_key(op.f("pk_run_request"), "run_request", ["id"])
    op.add_column("run_request", sa.Column("run_id", sa.BigInteger(), nullable=True, comment=_COMMENT))
    op.create_foreign_key(op.f("fk_run_request_run_id"), "run_request", "executed_reduction_step", ["run_id"], ["id"])
    op.create_unique_constraint(op.f("uq_run_request_run_id"), "run_request", ["run_id"])
    op.create_index("ix_run_request_place", "run_request", _PLACE)
    _have_noted("INSERT OR DELETE OR UPDATE OF created_at, is_forced")
    op.execute(
        """
        UPDATE run_request q SET run_id = (
            SELECT max(r.id) FROM executed_reduction_step r
            WHERE r.trigger_id = q.trigger_id AND r.reduction_step_id = q.reduction_step_id
              AND r.sub_group_key = q.sub_group_key AND NOT r.is_trial)
        """
    )
    op.create_index(
        "ix_run_request_open", "run_request", _PLACE, unique=True, postgresql_where=sa.text("run_id IS NULL")
    )
    op.create_index(op.f("ix_auxiliary_nearest_run_id"), "auxiliary_nearest", ["run_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_auxiliary_nearest_run_id"), table_name="auxiliary_nearest")
    op.execute(
        """
        DELETE FROM run_request q USING run_request other
        WHERE other.reduction_step_id = q.reduction_step_id AND other.sub_group_key = q.sub_group_key
          AND (other.run_id IS NOT NULL, other.id) < (q.run_id IS NOT NULL, q.id)
        """
    )
    _have_noted("INSERT OR UPDATE OR DELETE")
    op.drop_index("ix_run_request_open", table_name="run_request", postgresql_where=sa.text("run_id IS NULL"))
    op.drop_index("ix_run_request_place", table_name="run_request")
    op.drop_column("run_request", "run_id")
    op.drop_column("run_request", "id")
    op.create_primary_key(op.f("pk_run_request"), "run_request", _PLACE)


def _have_noted(what: str) -> None:
    op.execute("DROP TRIGGER note_run_request ON run_request")
    op.execute(
        f"CREATE TRIGGER note_run_request AFTER {what} ON run_request FOR EACH ROW EXECUTE FUNCTION note_request()"
    )
