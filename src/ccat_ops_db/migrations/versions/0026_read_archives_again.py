"""Archive copies are read again over time, and people are told of those that were found damaged or gone."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_LOCATION, _COPY = "data_location", "physical_copy"
_NEW = "lost_copy"
_KINDS = ("failed_for_good", "dead_service", "full_disk", "unusable_location", _NEW, "backlog")
_CHECKS = {
    "scrub_days_is_not_negative": "scrub_days >= 0",
    "scrub_mb_per_s_is_positive": "scrub_mb_per_s > 0",
}


def _allow(*kinds: str) -> None:
    name = op.f("ck_alert_alertkind")
    op.drop_constraint(name, "alert")
    op.create_check_constraint(name, "alert", sa.column("kind").in_(kinds))


def upgrade() -> None:
    columns: list[sa.Column[object]] = [
        sa.Column(
            "scrub_days",
            sa.BigInteger(),
            comment="Days after which an archive copy there is read again; 0: never, NULL: as usual.",
        ),
        sa.Column(
            "scrub_mb_per_s", sa.Double(), comment="Megabytes a second at which they are at most; NULL: as usual."
        ),
        sa.Column(
            "archive_look_at",
            sa.TIMESTAMP(timezone=True),
            comment="When it is looked at again what of an archive is to be read; NULL: now.",
        ),
    ]
    for column in columns:
        op.add_column(_LOCATION, column)
    for name, check in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_{_LOCATION}_{name}"), _LOCATION, check)
    op.create_index(
        f"ix_{_COPY}_verified",
        _COPY,
        ["data_location_id", "verified_at"],
        postgresql_where=sa.text("raw_data_package_id IS NOT NULL AND status = 'present'"),
    )
    _allow(*_KINDS)


def downgrade() -> None:
    op.execute(f"DELETE FROM alert WHERE kind = '{_NEW}'")  # noqa: S608 - a word of ours
    _allow(*(kind for kind in _KINDS if kind != _NEW))
    op.drop_index(f"ix_{_COPY}_verified", _COPY)
    for name in _CHECKS:
        op.drop_constraint(op.f(f"ck_{_LOCATION}_{name}"), _LOCATION)
    for name in ("archive_look_at", "scrub_mb_per_s", "scrub_days"):
        op.drop_column(_LOCATION, name)
