"""What took the place of a copy that was lost is found by an index, however many copies there are."""

import sqlalchemy as sa
from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None

_TABLE, _NOUNS = "physical_copy", ("raw_data_package", "data_product")


def upgrade() -> None:
    for noun in _NOUNS:
        is_of_noun = sa.text(f"{noun}_id IS NOT NULL")
        op.create_index(f"ix_{_TABLE}_{noun}", _TABLE, [f"{noun}_id"], postgresql_where=is_of_noun)


def downgrade() -> None:
    for noun in _NOUNS:
        op.drop_index(f"ix_{_TABLE}_{noun}", _TABLE)
