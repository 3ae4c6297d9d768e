"""A step says how long it waits for its inputs, and what it goes without."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_STEP = "reduction_step_revision"


def _choice(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def _add_options_of_steps() -> None:
    op.add_column(
        _STEP,
        sa.Column(
            "on_failed_input",
            _choice("onfailedinput", "block", "omit"),
            server_default="block",
            nullable=False,
            comment="Whether packages that were given up upstream are waited for.",
        ),
    )
    op.add_column(
        _STEP,
        sa.Column(
            "readiness",
            _choice("inputreadiness", "complete", "available"),
            server_default="complete",
            nullable=False,
            comment="How much of what was there at its cut-off a run waits for.",
        ),
    )
    op.add_column(
        _STEP,
        sa.Column(
            "min_fraction",
            sa.Double(),
            nullable=True,
            comment="Fraction of the packages that must be ready, of readiness `available`; 0 is any one of them.",
        ),
    )
    op.create_check_constraint(
        op.f("ck_reduction_step_revision_available_has_a_fraction"),
        _STEP,
        "(readiness = 'available') = (min_fraction IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("ck_reduction_step_revision_min_fraction_is_a_fraction"),
        _STEP,
        "min_fraction >= 0 AND min_fraction <= 1",
    )


def _note_what_is_left_out() -> None:
    op.add_column(
        "sub_group_package",
        sa.Column(
            "is_given_up",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether it does not become ready by itself: a run of it was given up.",
        ),
    )
    op.add_column(
        "sub_group_package",
        sa.Column(
            "left_out",
            _choice("leftout", "omitted", "awaited"),
            nullable=True,
            comment="Why a run of now goes without it, as it is not ready upstream; NULL: it does not.",
        ),
    )
    op.create_index(
        "ix_sub_group_package_left_out",
        "sub_group_package",
        ["reduction_step_id"],
        unique=False,
        postgresql_where=sa.text("left_out IS NOT NULL"),
    )


def upgrade() -> None:
    _add_options_of_steps()
    _note_what_is_left_out()


def downgrade() -> None:
    op.drop_column("sub_group_package", "left_out")
    op.drop_column("sub_group_package", "is_given_up")
    for column in ("min_fraction", "readiness", "on_failed_input"):
        op.drop_column(_STEP, column)
