from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.states import ProductState


def orphan(session: Session, step_id: int, keys: Collection[str], *, by: str) -> list[int]:
    """Let the products of sub-groups that no package is left of be ORPHANED; their ids."""
    if not keys:
        return []
    run, product = models.ExecutedReductionStep, models.DataProduct
    current = sa.select(product.id).join(product.run)
    wanted = sa.literal(sorted(keys), sa.ARRAY(sa.Text))
    of_them = current.where(
        run.reduction_step_id == step_id,
        run.sub_group_key == sa.any_(wanted),
        product.state == ProductState.CURRENT,
    )
    because = "the last package of their sub-group left"
    ids = session.scalars(of_them).all()
    return advance(session, product, ids, to=ProductState.ORPHANED, because=because, by=by)
