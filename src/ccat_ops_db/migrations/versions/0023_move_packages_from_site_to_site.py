"""Raw packages go from site to site along routes, on their way into an archive."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_ROUTE = "data_transfer_route"
_ARCHIVING = "long_term_archive_transfer"
_POINTS_TO = {"via_site_id": "site", "origin_id": "data_location", "destination_id": "data_location"}
_CHECKS = {
    "relay_has_a_site": "(route_type = 'relay') = (via_site_id IS NOT NULL)",
    "relay_is_another_site": "via_site_id NOT IN (origin_site_id, destination_site_id)",
    "custom_has_locations": "(route_type = 'custom') = (origin_id IS NOT NULL) AND (origin_id IS NULL) = (destination_id IS NULL)",
    "package_bytes_is_positive": "package_bytes > 0",
    "package_wait_seconds_is_not_negative": "package_wait_seconds >= 0",
    "mover": "method IN ('copy', 'rsync', 'bbcp')",
}
_OLD = ("Program that moves the bytes, such as posix or bbcp.", "Location that it is read from.")
_NEW = ("What moves the bytes.", "Where its tar is, or is to be next; it moves on with the package.")
_METHODS = sa.Enum("copy", "rsync", "bbcp", name="mover", native_enum=False, create_constraint=False, length=32)


def upgrade() -> None:
    _change_routes()
    op.add_column(
        _ARCHIVING,
        sa.Column(
            "data_transfer_id",
            sa.BigInteger(),
            nullable=True,
            comment="What carried it from one site to another last.",
        ),
    )
    op.alter_column(_ARCHIVING, "origin_id", comment=_NEW[1], existing_comment=_OLD[1])
    op.create_index(
        "ix_long_term_archive_transfer_data_transfer",
        _ARCHIVING,
        ["data_transfer_id"],
        postgresql_where=sa.text("data_transfer_id IS NOT NULL"),
    )
    op.create_index("ix_long_term_archive_transfer_destination", _ARCHIVING, ["destination_id", "id"])
    op.alter_column("data_transfer", "data_transfer_route_id", nullable=False)  # nothing was ever transferred before
    name = op.f("fk_long_term_archive_transfer_data_transfer_id")
    op.create_foreign_key(name, _ARCHIVING, "data_transfer", ["data_transfer_id"], ["id"])


def _change_routes() -> None:
    comments = {
        "via_site_id": "Site that they go to first; RELAY only.",
        "origin_id": "Location whose data alone take it; CUSTOM only.",
        "destination_id": "Location that they go to; CUSTOM only.",
    }
    for name, comment in comments.items():
        op.add_column(_ROUTE, sa.Column(name, sa.BigInteger(), nullable=True, comment=comment))
        op.create_foreign_key(op.f(f"fk_{_ROUTE}_{name}"), _ROUTE, _POINTS_TO[name], [name], ["id"])
    amounts = {
        "package_bytes": ("1000000000000", "A transfer package is sent once it holds as much."),
        "package_wait_seconds": ("600", "It is sent with less once its oldest data have waited as long."),
    }
    for name, (default, comment) in amounts.items():
        column = sa.Column(name, sa.BigInteger(), server_default=default, nullable=False, comment=comment)
        op.add_column(_ROUTE, column)
    active: sa.Column[bool] = sa.Column(
        "active",
        sa.Boolean(),
        server_default=sa.true(),
        nullable=False,
        comment="Whether anything new is sent along it.",
    )
    op.add_column(_ROUTE, active)
    op.execute("UPDATE data_transfer_route SET method = 'copy' WHERE method NOT IN ('rsync', 'bbcp')")
    op.alter_column(_ROUTE, "method", type_=_METHODS, comment=_NEW[0], existing_comment=_OLD[0])
    for name, check in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_{_ROUTE}_{name}"), _ROUTE, check)


def downgrade() -> None:
    op.alter_column("data_transfer", "data_transfer_route_id", nullable=True)
    op.drop_constraint(op.f("fk_long_term_archive_transfer_data_transfer_id"), _ARCHIVING)
    op.drop_index("ix_long_term_archive_transfer_destination", _ARCHIVING)
    op.drop_index("ix_long_term_archive_transfer_data_transfer", _ARCHIVING)
    op.alter_column(_ARCHIVING, "origin_id", comment=_OLD[1], existing_comment=_NEW[1])
    op.drop_column(_ARCHIVING, "data_transfer_id")
    for name in _CHECKS:
        op.drop_constraint(op.f(f"ck_{_ROUTE}_{name}"), _ROUTE)
    op.alter_column(_ROUTE, "method", type_=sa.Text(), comment=_OLD[0], existing_comment=_NEW[0])
    for name in ("active", "package_wait_seconds", "package_bytes", *_POINTS_TO):
        op.drop_column(_ROUTE, name)
