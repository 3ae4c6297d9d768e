import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql import JSONB

from ccat_ops_db import models
from ccat_ops_db.sets import Brought, is_among, once_more

AT_ONCE = 4
BROUGHT = Brought(
    "brought",
    text=sa.Text(),
    number=sa.BigInteger(),
    measure=sa.Double(),
    at=sa.TIMESTAMP(timezone=True),
    told=JSONB(),
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
big = st.integers(-(2**63), 2**63 - 1)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - naive bounds
values = st.tuples(
    st.none() | texts,
    st.none() | big,
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | moments,
    st.none() | st.dictionaries(texts, st.lists(texts | st.integers(-1000, 1000) | st.none(), max_size=3), max_size=3),
)


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


@pytest.mark.parametrize(
    "columns", [{}, {"text": ["a"]}, {**{name: ["a"] for name in BROUGHT.c.keys()[1:]}, "b": ["a"]}]
)
def test_rows_that_lack_a_column_or_have_a_strange_one_are_refused(columns: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="are not the columns"):
        BROUGHT.rows([1], **columns)


@given(st.dictionaries(big, values, max_size=5))
def test_rows_that_are_brought_along_arrive_as_they_are(shared_engine: sa.Engine, rows: dict[int, Any]) -> None:
    columns = list(zip(*rows.values(), strict=True)) or [()] * 5
    names = ("text", "number", "measure", "at", "told")
    brought = BROUGHT.rows(rows, **dict(zip(names, columns, strict=True)))
    with shared_engine.connect() as connection:
        found = connection.execute(sa.select(BROUGHT.table), brought.parameters).all()
    assert {row.id: tuple(row[1:]) for row in found} == rows
