"""What the database says of any runs, against a walk from one to the next; what withdrawals mark, and who waits."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.queries.descent import affected, ancestors, descendant_products, descendants
from ccat_ops_db.queries.lineage import lineage
from ccat_ops_db.queries.roots import Kind, Root
from ccat_ops_db.queries.validity import invalid_inputs
from ccat_ops_db.session import transaction
from ccat_ops_db.states import InputRole, ProductState, RunStatus
from ccat_ops_db.verbs.withdrawing import reinstate, withdraw
from tests.ops_db.rows import DIGEST, World

NOW = datetime(2026, 4, 5, 1, 0, tzinfo=UTC)
COPIED = [
    "reduction_step_id",
    "step_revision_id",
    "pipeline_id",
    "data_location_id",
    "software_version_id",
    "sub_group_path",
    "sub_group_labels",
    "reason",
    "because",
    "recipe_digest",
    "series_digest",
    "input_digest",
]
Taken = list[set[int]]


@st.composite
def graphs(draw: st.DrawFn) -> Taken:
    """Of each run which runs before it it took something from; the first takes the raw package only."""
    size = draw(st.integers(2, 9))
    return [set[int](), *(draw(st.sets(st.integers(0, number - 1), max_size=3)) for number in range(1, size))]


@dataclass
class Runs:
    """Completed runs of one step and of so many sub-groups, each with one product."""

    session: Session
    taken: Taken
    runs: list[int]
    products: list[int]

    def below(self, start: set[int]) -> set[int]:
        """Runs that took something of these, or of those that did."""
        found = {number for number, of in enumerate(self.taken) if of & start}
        return found if found <= start else found | self.below(found | start)

    def above(self, start: int) -> set[int]:
        return {start}.union(*(self.above(one) for one in self.taken[start]))

    def root(self, number: int) -> Root:
        kind, ids = (Kind.RUN, self.runs) if number % 2 else (Kind.PRODUCT, self.products)
        return Root(kind, (ids[number],), f"{kind} {number}")

    def states(self) -> list[ProductState]:
        product = models.DataProduct
        found = self.session.execute(sa.select(product.id, product.state).where(product.id.in_(self.products)))
        by_id = {row.id: row.state for row in found}
        return [by_id[one] for one in self.products]


def made(session: Session, world: World, taken: Taken) -> Runs:
    """The newest of each sub-group is current."""
    model = session.get_one(models.ExecutedReductionStep, world.run)
    values = {name: getattr(model, name) for name in COPIED}
    runs = [
        models.ExecutedReductionStep(
            **values, sub_group_key=f"group={number % 4}", status=RunStatus.COMPLETED, inputs_frozen_at=NOW
        )
        for number in range(len(taken))
    ]
    session.add_all(runs)
    session.flush()
    place = {"run_attempt_id": world.attempt, "relative_path": "a.fits", "checksum": DIGEST}
    products = [
        models.DataProduct(run_id=run.id, type="science", size_bytes=1, state=state, **place)
        for run, state in zip(runs, states_of(len(taken)), strict=True)
    ]
    session.add_all(products)
    session.flush()
    session.add(models.RunInput(run_id=runs[0].id, role=InputRole.RAW, raw_data_package_id=world.package))
    session.add_all(
        models.RunInput(run_id=run.id, role=InputRole.UPSTREAM, data_product_id=products[one].id)
        for run, of in zip(runs, taken, strict=True)
        for one in of
    )
    session.flush()
    return Runs(session, taken, [one.id for one in runs], [one.id for one in products])


def states_of(size: int) -> list[ProductState]:
    return [ProductState.CURRENT if number + 4 >= size else ProductState.SUPERSEDED for number in range(size)]


@pytest.fixture(scope="module")
def connection(shared_engine: sa.Engine) -> Iterator[sa.Connection]:
    with shared_engine.connect() as connection:
        yield connection


@settings(max_examples=20)
@given(taken=graphs())
def test_both_directions_are_those_of_a_walk(connection: sa.Connection, world: World, taken: Taken) -> None:
    with connection.begin() as undone, Session(connection) as session:
        found = made(session, world, taken)
        for number, product in enumerate(found.products):
            root = Root(Kind.PRODUCT, (product,), "it")
            below, above = found.below({number}), found.above(number)
            ids = set(session.scalars(descendant_products(root)))
            assert ids == {found.products[one] for one in below | {number}}
            assert sum(one.runs for one in descendants(session, root)) == len(below)
            assert sum(one.products for one in affected(session, root)) == len(below) + 1
            assert set(lineage(session, product).runs) == {found.runs[one] for one in above}
            assert sum(one.runs for one in ancestors(session, product)) == len(above)
        version, every = Root(Kind.VERSION, (world.version,), "it"), sa.func.count(models.ExecutedReductionStep.id)
        assert sum(one.runs for one in descendants(session, version)) == session.scalar(sa.select(every))
        package = Root(Kind.PACKAGE, (world.package,), "it")
        assert set(session.scalars(descendant_products(package))) == {
            found.products[one] for one in found.below({0}) | {0}
        }
        undone.rollback()


@settings(max_examples=20)
@given(taken=graphs(), words=st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=8))
def test_marked_is_exactly_what_was_made_from_what_is_withdrawn(
    connection: sa.Connection, world: World, taken: Taken, words: list[tuple[bool, int]]
) -> None:
    with connection.begin() as undone, Session(connection) as session:
        found = made(session, world, taken)
        before, live = found.states(), set[int]()
        for is_withdrawn, number in [(word, number % len(taken)) for word, number in words]:
            root = found.root(number)
            if is_withdrawn:
                assert withdraw(session, root, because="x", now=NOW, by="y").is_new == (number not in live)
                live.add(number)
            else:
                assert reinstate(session, root, now=NOW, by="y").was_withdrawn == (number in live)
                live.discard(number)
            marked = {one for number in live for one in found.below({number}) | {number}}
            assert found.states() == [
                ProductState.WITHDRAWN if one in marked else state for one, state in enumerate(before)
            ]
        undone.rollback()


@dataclass
class Registering:
    """A run that is collected, of a package that somebody withdraws meanwhile."""

    engine: sa.Engine
    world: World
    run_id: int

    @property
    def package(self) -> Root:
        return Root(Kind.PACKAGE, (self.world.package,), "the package")

    def withdraw(self, session: Session) -> int:
        return withdraw(session, self.package, because="x", now=NOW, by="y").products

    def look(self, session: Session) -> Mapping[int, str]:
        return invalid_inputs(session, [self.run_id])

    def register(self, session: Session) -> int:
        """A product more, as a collector adds it."""
        late = models.DataProduct(
            run_id=self.run_id,
            run_attempt_id=self.world.attempt,
            type="science",
            relative_path=f"{uuid.uuid4()}.fits",
            size_bytes=1,
            checksum=DIGEST,
        )
        session.add(late)
        session.flush()
        return late.id

    def later(self, work: Callable[[Session], Any]) -> Any:
        with transaction(self.engine) as session:
            return work(session)

    def until_somebody_waits(self) -> None:
        waits = sa.text("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
        deadline = time.monotonic() + 20
        while not self.later(lambda session: session.scalar(waits)):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def registering(shared_engine: sa.Engine, world: World) -> Iterator[Registering]:
    with transaction(shared_engine) as session:
        run_id = made(session, world, [set()]).runs[0]
    found = Registering(shared_engine, world, run_id)
    yield found
    with transaction(shared_engine) as session:
        reinstate(session, found.package, now=NOW, by="y")
        session.execute(sa.delete(models.RunInput).where(models.RunInput.run_id == run_id))


def test_what_is_registered_before_a_withdrawal_is_marked_by_it(registering: Registering) -> None:
    with ThreadPoolExecutor(1) as pool:
        with transaction(registering.engine) as session:
            assert registering.look(session) == {}
            withdrawn = pool.submit(registering.later, registering.withdraw)
            registering.until_somebody_waits()
            late = registering.register(session)
        assert withdrawn.result() == 2
        state = registering.later(lambda session: session.get_one(models.DataProduct, late).state)
        assert state is ProductState.WITHDRAWN


def test_what_is_withdrawn_before_it_is_registered_is_seen(registering: Registering) -> None:
    with ThreadPoolExecutor(1) as pool:
        with transaction(registering.engine) as session:
            assert registering.withdraw(session) == 1
            seen = pool.submit(registering.later, registering.look)
            registering.until_somebody_waits()
        assert seen.result() == {registering.run_id: "raw package package-1 was withdrawn: x (y)"}


def test_those_that_register_do_not_wait_for_each_other(registering: Registering) -> None:
    with transaction(registering.engine) as one, transaction(registering.engine) as other:
        assert registering.look(one) == registering.look(other) == {}
