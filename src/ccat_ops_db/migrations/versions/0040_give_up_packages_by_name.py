"""A person may say that a raw package that failed is gone for good; a package that goes on is not given up any more."""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None

_PACKAGE = "raw_data_package"
_CHECKS = {
    "given_up_has_a_reason": "(given_up_at IS NULL) = (given_up_because IS NULL)",
    "what_failed_is_given_up": "given_up_at IS NULL OR state = 'failed'",
}


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    comment = "When a person said that it is gone for good; NULL: it is to be mended, or did not fail."
    op.add_column(_PACKAGE, sa.Column("given_up_at", moment, nullable=True, comment=comment))
    op.add_column(
        _PACKAGE, sa.Column("given_up_because", sa.Text(), nullable=True, comment="Why it is gone, and who said so.")
    )
    for name, rule in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_{_PACKAGE}_{name}"), _PACKAGE, rule)
    op.execute(
        "CREATE OR REPLACE FUNCTION take_up_package() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "NEW.given_up_at := NULL; NEW.given_up_because := NULL; RETURN NEW; END $$"
    )
    op.execute(
        f"CREATE TRIGGER take_up_{_PACKAGE} BEFORE UPDATE OF state ON {_PACKAGE} FOR EACH ROW "
        "WHEN (OLD.given_up_at IS NOT NULL AND NEW.state <> 'failed') EXECUTE FUNCTION take_up_package()"
    )


def downgrade() -> None:
    op.execute(f"DROP TRIGGER take_up_{_PACKAGE} ON {_PACKAGE}")
    op.execute("DROP FUNCTION take_up_package()")
    for name in reversed(_CHECKS):
        op.drop_constraint(op.f(f"ck_{_PACKAGE}_{name}"), _PACKAGE)
    op.drop_column(_PACKAGE, "given_up_because")
    op.drop_column(_PACKAGE, "given_up_at")
