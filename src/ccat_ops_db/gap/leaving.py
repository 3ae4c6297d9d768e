from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.states import ProductState


def orphan(session: Session, step_id: int, keys: Collection[str] | None, *, by: str) -> list[int]:
    """Let the products of sub-groups that no package is left of, these if they are named, be ORPHANED; their ids."""
    if keys is not None and not keys:
        return []
    run, product, group = models.ExecutedReductionStep, models.DataProduct, models.SubGroup
    is_there = sa.exists().where(group.reduction_step_id == step_id, group.key == run.sub_group_key)
    of_them = (
        sa.select(product.id)
        .join(product.run)
        .where(run.reduction_step_id == step_id, product.state == ProductState.CURRENT, sa.not_(is_there))
    )
    if keys is not None:
        of_them = of_them.where(run.sub_group_key == sa.any_(sa.literal(sorted(keys), sa.ARRAY(sa.Text))))
    because = "the last package of their sub-group left"
    ids = session.scalars(of_them).all()
    if not ids:
        return []
    return advance(session, product, ids, to=ProductState.ORPHANED, because=because, by=by)
