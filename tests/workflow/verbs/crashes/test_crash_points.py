"""A process that dies at any point of the code, before or after any commit and any call outside: nothing is amiss."""

import os
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from signal import SIGKILL

import pytest
import sqlalchemy as sa
from redis import Redis

from ccat.crashing import points
from ccat.stack.redis import RedisAddress
from ccat_ops_db import models
from ccat_ops_db.states import PhysicalCopyStatus, ProductState, RunStatus
from ccat_workflow_manager.verbs.describing import run_directory
from tests.workflow.hpc.bench import jobs_below
from tests.workflow.verbs.conftest import OpenWorks
from tests.workflow.verbs.crashes.lives import LIVES, SCRIPT, STEP, Life, finish
from tests.workflow.verbs.crashes.mortals import LOOKED, OF_CLUSTERS, OF_IMAGES, SAID, Mortals
from tests.workflow.verbs.manager_process import ManagerProcess
from tests.workflow.verbs.works import Works, eventually

pytestmark = pytest.mark.timeout(900)
LIVES_OF_A_POINT = 8
"""Until then one has come by it that not every life comes by."""
DEATHS = 20
"""In one life, at most: a life of its own for each would take too long."""


def observe(works: Works, life: str) -> None:
    """Have a scan taken whose run will have this life."""
    works.observe(f"{LIVES[life].software}\n# {works._scans}")


@pytest.fixture(scope="module")
def scene(open_works: OpenWorks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    with open_works(tmp_path_factory.mktemp("crashes")) as works:
        works.define(STEP, scripts={"reduce": SCRIPT})
        yield works


@pytest.fixture(scope="module")
def mortals(scene: Works, redis_address: RedisAddress) -> Iterator[Mortals]:
    mortals = Mortals(scene, redis_address, scene.root / "mortals.log")
    for life in LIVES:
        observe(scene, life)
        mortals.come_by(life, life=life)
    yield mortals
    mortals.close()


def test_the_lives_come_by_every_point(mortals: Mortals) -> None:
    of_lives = {point for point in points() if not point.startswith((*LOOKED, *OF_CLUSTERS, *OF_IMAGES, *SAID))}
    missing = sorted(of_lives - mortals.ways.keys())
    assert not missing, "\n".join(["add a life to lives.py that comes by", *missing])


@pytest.mark.parametrize("life", LIVES)
def test_a_run_is_made_once_whenever_processes_die_while_it(life: str, scene: Works, mortals: Mortals) -> None:
    left = mortals.points_of(life)
    several = -(-len(left) // DEATHS)
    missed = [point for start in range(several) for point in die_at(left[start::several], life, scene, mortals)]
    assert [point for point in missed if not is_come_by(point, scene, mortals)] == []


def is_come_by(point: str, scene: Works, mortals: Mortals) -> bool:
    """Whether somebody dies at a point: some are come by only in some moment of a life, or in some of its lives."""
    lives = islice(cycle(reversed(mortals.ways[point])), LIVES_OF_A_POINT)
    return any(die_at([point], life, scene, mortals) == [] for life in lives)


def test_a_manager_dies_where_it_is_told_to(scene: Works, redis_address: RedisAddress) -> None:
    point = "ccat_workflow_manager.managers.create_runs:commit:after#2"
    log = scene.root / "trigger-manager.log"
    manager = ManagerProcess("trigger-manager", scene, redis_address, log=log, CCAT_CRASH_AT=point)
    assert manager.end() == -SIGKILL
    assert "manager started" in log.read_text()


def test_what_they_were_writing_is_removed_later(scene: Works, redis_address: RedisAddress) -> None:
    drafts = list(scene.base.glob("local-jobs/.*"))
    assert drafts
    for draft in drafts:
        os.utime(draft, (1, 1))
    with Redis.from_url(redis_address.url) as redis:
        redis.flushdb()  # as after some minutes, when the backend looks at all its files again
    scene.workplace.backends[scene.location_id].observe(["a job"])
    assert list(scene.base.glob("local-jobs/.*")) == []


def die_at(points: Sequence[str], life: str, scene: Works, mortals: Mortals) -> list[str]:
    """One process after the other dies in the same life, then healthy ones go on; the points that were not reached."""
    left, part = list(points), 0
    observe(scene, life)
    while left and (end := mortals.ask(life=life, points=left, first=part))["died"]:
        left.remove(end["died"])
        part = end["part"]
        LIVES[life].mended(scene)
    finish(scene)
    check(scene, LIVES[life])
    return left


def check(works: Works, life: Life) -> None:
    """What is so at the end of every life."""
    newest = sa.select(sa.func.max(models.ExecutedReductionStep.id))
    run = works.run(id=works.session(lambda session: session.scalar(newest)))
    if life.may_fail and run.status in {RunStatus.FAILED, RunStatus.CANCELLED}:
        assert (run.retry_at, run.products) == (None, [])
        return
    assert run.status is RunStatus.COMPLETED, run.failure
    [product] = run.products
    assert (product.state, works.text(product)) == (ProductState.CURRENT, "made\n")
    [copy] = works.all(models.PhysicalCopy, data_product_id=product.id)
    assert copy.status is PhysicalCopyStatus.PRESENT
    assert works.moves(run).count("completed") == 1
    assert works.all(models.RunInput, run_id=run.id)
    layout = run_directory(run, works.base)
    marks = (layout.directory / "marks").read_text().splitlines()
    assert marks.count("start") <= life.starts
    assert not life.is_alone or "overlap" not in marks
    eventually(lambda: not jobs_below(works.base))
