import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.sets import is_among, once_more

AT_ONCE = 4


@pytest.mark.parametrize(("ids", "found"), [([], 0), (range(1, 100_000), 1), ([7, 7], 0)])
def test_any_number_of_ids_is_one_condition(engine: sa.Engine, ids: list[int], found: int) -> None:
    with engine.connect() as connection:
        connection.execute(sa.insert(models.Site).values(id=1, short_name="a", name="A"))
        query = sa.select(sa.func.count()).select_from(models.Site).where(is_among(models.Site.id, ids))
        assert connection.scalar(query) == found


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_that_use_a_table_once_more_for_the_first_time_compare_it_with_the_other() -> None:
    run = models.ExecutedReductionStep
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for _ in range(100):
            newer, start = once_more(run), Barrier(AT_ONCE)

            def compared(_: int, newer: Any = newer, start: Barrier = start) -> str:
                start.wait()
                same_step = newer.reduction_step_id == run.reduction_step_id
                return str(sa.and_(same_step, newer.sub_group_key == run.sub_group_key, newer.id > run.id))

            told = set(threads.map(compared, range(AT_ONCE)))
            assert [one.count("executed_reduction_step_1.") for one in told] == [3]
