import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.sets import is_among


@pytest.mark.parametrize(("ids", "found"), [([], 0), (range(1, 100_000), 1), ([7, 7], 0)])
def test_any_number_of_ids_is_one_condition(engine: sa.Engine, ids: list[int], found: int) -> None:
    with engine.connect() as connection:
        connection.execute(sa.insert(models.Site).values(id=1, short_name="a", name="A"))
        query = sa.select(sa.func.count()).select_from(models.Site).where(is_among(models.Site.id, ids))
        assert connection.scalar(query) == found
