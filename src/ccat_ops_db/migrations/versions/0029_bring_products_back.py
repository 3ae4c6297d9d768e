"""Products travel over routes, and are brought back to where runs take them."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_JOB, _TRANSFER = "staging_job", "product_archive_transfer"
_LIVE = sa.text("status IN ('pending', 'scheduled', 'in_progress')")
_ORIGIN = "PROCESSING location where they were made."
_PLACE = "Where they are: the PROCESSING location where they were made, and the buffers that they come to."


def upgrade() -> None:
    _stage_products()
    _move_products()
    # A copy counts from when it was read back: before that there are no bytes that anybody could take.
    op.execute(
        "CREATE TRIGGER note_physical_copy_arrival AFTER UPDATE OF status ON physical_copy FOR EACH ROW "
        "WHEN (NEW.data_product_id IS NOT NULL AND OLD.status = 'writing' AND NEW.status = 'present') "
        "EXECUTE FUNCTION note_other_copy()"
    )


def _stage_products() -> None:
    op.alter_column(
        _JOB,
        "raw_data_package_id",
        nullable=True,
        existing_type=sa.BigInteger(),
        comment="The raw package, of a job for one.",
        existing_comment="What is staged.",
    )
    product: sa.Column[int] = sa.Column(
        "data_product_id", sa.BigInteger(), nullable=True, comment="The product, of a job for one."
    )
    op.add_column(_JOB, product)
    repair: sa.Column[bool] = sa.Column(
        "is_repair",
        sa.Boolean(),
        server_default=sa.false(),
        nullable=False,
        comment="Whether it mends a damaged or lost copy, and is wanted without any run.",
    )
    op.add_column(_JOB, repair)
    op.create_foreign_key(op.f(f"fk_{_JOB}_data_product_id"), _JOB, "data_product", ["data_product_id"], ["id"])
    check = op.f(f"ck_{_JOB}_is_of_exactly_one_object")
    op.create_check_constraint(check, _JOB, "num_nonnulls(raw_data_package_id, data_product_id) = 1")
    columns = ["data_product_id", "data_location_id"]
    op.create_index(f"uq_{_JOB}_live_product", _JOB, columns, unique=True, postgresql_where=_LIVE)
    op.create_index(f"ix_{_JOB}_product_location", _JOB, columns)


def _move_products() -> None:
    op.alter_column(_TRANSFER, "origin_id", existing_type=sa.BigInteger(), comment=_PLACE, existing_comment=_ORIGIN)
    columns = {
        "next_id": (
            "data_location",
            "Buffer that they are moved to first; NULL: they are archived from where they are.",
        ),
        "data_transfer_route_id": ("data_transfer_route", "Route that leads to that buffer."),
    }
    for name, (table, comment) in columns.items():
        column: sa.Column[int] = sa.Column(name, sa.BigInteger(), nullable=True, comment=comment)
        op.add_column(_TRANSFER, column)
        op.create_foreign_key(op.f(f"fk_{_TRANSFER}_{name}"), _TRANSFER, table, [name], ["id"])
    check = op.f(f"ck_{_TRANSFER}_moves_along_a_route")
    op.create_check_constraint(check, _TRANSFER, "(next_id IS NULL) = (data_transfer_route_id IS NULL)")


def downgrade() -> None:
    op.execute("DROP TRIGGER note_physical_copy_arrival ON physical_copy")
    op.drop_constraint(op.f(f"ck_{_TRANSFER}_moves_along_a_route"), _TRANSFER)
    for name in ("data_transfer_route_id", "next_id"):
        op.drop_column(_TRANSFER, name)
    op.alter_column(_TRANSFER, "origin_id", existing_type=sa.BigInteger(), comment=_ORIGIN, existing_comment=_PLACE)
    op.execute("DELETE FROM staging_job WHERE data_product_id IS NOT NULL")
    op.drop_constraint(op.f(f"ck_{_JOB}_is_of_exactly_one_object"), _JOB)
    for name in ("is_repair", "data_product_id"):
        op.drop_column(_JOB, name)
    op.alter_column(
        _JOB,
        "raw_data_package_id",
        nullable=False,
        existing_type=sa.BigInteger(),
        comment="What is staged.",
        existing_comment="The raw package, of a job for one.",
    )
