"""Commands that die where they commit, which all of them do in one place; and a worker that dies when it starts."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from signal import SIGKILL
from typing import Any, Final

import pytest
import sqlalchemy as sa
import yaml
from sqlalchemy.orm import Session

from ccat.crashing import points
from ccat.stack.redis import RedisAddress
from ccat_ops_db import models
from ccat_ops_db.models import Base
from ccat_ops_db.queries.roots import Kind, find_one
from ccat_ops_db.states import FailureClass, ProductState, RunStatus
from ccat_ops_db.verbs.pausing import pause
from ccat_ops_db.verbs.planning import make_plan
from ccat_ops_db.verbs.withdrawing import withdraw
from ccat_service.processes import claimant
from tests.workflow.verbs.crashes.mortals import SAID, Forker
from tests.workflow.verbs.works import LOCATION_NAME, Works

COMMIT: Final = "ccat.wiring.transaction:commit"
"""Where every command commits."""
STARTS: Final = [
    *("ccat.wiring.all_locations:commit:before", "ccat.wiring.all_locations:commit:after"),
    *("ccat.processes.celery_worker:commit:before", "ccat.processes.celery_worker:commit:after"),
]
"""By what a worker comes when it starts, in this order."""
TELLS: Final = [f"ccat.processes._served:commit:{when}" for when in ("before", "after")]
"""By what a transfer-worker comes as it says what it serves."""
HAS_SEEN: Final = "ccat_service.spaces.measure_space:commit:after"
"""By what it comes when it has started."""
STEP: Final = {"key": "calibrate", "group_by": ["executed_obs_unit"], "max_retries": 0}
BECAUSE: Final = "clouds"


@dataclass(frozen=True)
class Wish:
    """What somebody says, and what is so once it is said."""

    words: Callable[[Works], Sequence[object]]
    """Has the installation be one in which it can be said."""
    holds: Callable[[Works], object]
    again: str
    """Part of what is answered to somebody who says it once more."""
    commits: int = 1
    """In which of its transactions it is done."""
    code: int = 0
    """With which the command ends that says it once more."""
    is_done_again: bool = False
    """Whether it is then done a second time."""


def _pending(works: Works) -> int:
    works.define(STEP)
    works.archived("one")
    works.create()
    return works.run().id


def _failed(works: Works) -> int:
    run_id = _pending(works)
    works.start()
    works.fail(run_id, FailureClass.PAYLOAD, "no line found")
    return run_id


def _completed(works: Works) -> int:
    works.define(STEP)
    works.observe("one")
    works.settle()
    assert works.run().status is RunStatus.COMPLETED
    return works.run().id


def _cancel(works: Works) -> Sequence[object]:
    return "run", "cancel", _pending(works), "--because", BECAUSE


def _is_cancelled(works: Works) -> bool:
    run = works.run()
    return (run.status, run.cancel_because) == (RunStatus.CANCELLED, BECAUSE)


def _retry(works: Works) -> Sequence[object]:
    return "run", "retry", "--like", _failed(works), "--because", BECAUSE


def _is_tried_again(works: Works) -> bool:
    run = works.run()
    *_, last = works.all(models.StatusChange, noun="executed_reduction_step", object_id=run.id)
    return run.status is RunStatus.PENDING and str(last.because).endswith(f": {BECAUSE}")


def _redo(works: Works) -> Sequence[object]:
    _completed(works)
    return "trigger", "toy", "--force", "--because", BECAUSE


def _is_asked_for(works: Works) -> bool:
    triggers = [(one.because, one.is_forced) for one in works.all(models.Trigger)]
    return triggers == [(BECAUSE, True)] and len(works.all_of(sa.select(models.RunRequest.trigger_id))) == 1


def _launch(works: Works) -> Sequence[object]:
    works.define(STEP)
    works.archived("one")
    planned = works.session(lambda session: make_plan(session, "toy", step=None, now=datetime.now(UTC), by="a person"))
    assert planned.plan
    return "trigger", "--plan", planned.plan.id


def _try_out(works: Works) -> Sequence[object]:
    works.define(STEP)
    works.archived("one")
    [found] = works.gap().values()
    return "trigger", "toy", "--step", STEP["key"], "--sub-group", found.path, "--trial", "--because", BECAUSE


def _is_tried_out(works: Works) -> bool:
    return [(one.is_trial, str(one.because).endswith(f": {BECAUSE}")) for one in works.runs()] == [(True, True)]


def _withdraw(works: Works) -> Sequence[object]:
    return "withdraw", "run", _completed(works), "--because", BECAUSE


def _is_withdrawn(works: Works) -> bool:
    [product] = works.run().products
    withdrawals = [one.because for one in works.all(models.Withdrawal, reinstated_at=None)]
    return product.state is ProductState.WITHDRAWN and withdrawals == [BECAUSE]


def _reinstate(works: Works) -> Sequence[object]:
    name = str(_completed(works))

    def withdraw_it(session: Session) -> object:
        now, root = datetime.now(UTC), find_one(session, Kind.RUN, name)
        return withdraw(session, root, because=BECAUSE, now=now, by="a person")

    works.session(withdraw_it)
    assert _is_withdrawn(works)
    return "reinstate", "run", name


def _is_reinstated(works: Works) -> bool:
    [product] = works.run().products
    return product.state is ProductState.CURRENT and works.all(models.Withdrawal, reinstated_at=None) == []


def _pause(works: Works) -> Sequence[object]:
    works.define(STEP)
    return "pause", "--pipeline", "toy", "--because", BECAUSE


def _resume(works: Works) -> Sequence[object]:
    works.define(STEP)
    works.session(lambda session: pause(session, pipeline="toy", location=None, because=BECAUSE, by="a person"))
    return "resume", "--pipeline", "toy"


def _paused(works: Works) -> Sequence[str]:
    return [one.because for one in works.all(models.Pause)]


def _exclude(works: Works) -> Sequence[object]:
    [package] = works.archived("one")
    return "package", "exclude", package, "--because", BECAUSE


def _is_excluded(works: Works) -> bool:
    return [str(one.excluded_because).partition(" (")[0] for one in works.all(models.RawDataPackage)] == [BECAUSE]


def _limit(_: Works) -> Sequence[object]:
    return "limit", "--location", LOCATION_NAME, "--live", 3


def _is_limited(works: Works) -> bool:
    return works.all_of(sa.select(models.DataLocation.live_limit).filter_by(id=works.location_id)) == [3]


def _apply(works: Works) -> Sequence[object]:
    file = works.root / "definitions.yaml"
    deep = {"name": "deep", "parameters": {"order": 3}}
    file.write_text(yaml.safe_dump({"configs": [deep], "groupings": [{"name": "everything", "rules": []}]}))
    return "apply", "--file", file


def _is_applied(works: Works) -> bool:
    return len(works.all(models.ReductionStepConfigRevision)) == len(works.all(models.DataGroupingRevision)) == 1


WISHES: Final = {
    "cancel": Wish(_cancel, _is_cancelled, "is over: there is nothing to cancel"),
    "retry": Wish(_retry, _is_tried_again, "has not failed, so none is alike", commits=2, code=1),
    "redo": Wish(_redo, _is_asked_for, "1 sub-group was asked for before"),
    "launch": Wish(_launch, lambda works: len(works.runs()) == 1, "0 runs were created; 1 does not hold any more"),
    "trial": Wish(_try_out, _is_tried_out, "Trial of calibrate 1.0: run ", is_done_again=True),
    "withdraw": Wish(_withdraw, _is_withdrawn, "was withdrawn already; the first reason stays", commits=2),
    "reinstate": Wish(_reinstate, _is_reinstated, "was not withdrawn"),
    "pause": Wish(_pause, lambda works: _paused(works) == [BECAUSE], "was paused already; the first reason stays"),
    "resume": Wish(_resume, lambda works: _paused(works) == [], "was not paused"),
    "exclude": Wish(_exclude, _is_excluded, "was excluded already; the first reason stays"),
    "limit": Wish(_limit, _is_limited, "are limited to 3 at a time"),
    "apply": Wish(_apply, _is_applied, "0 of 2 changed", commits=2),
}


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    speaker = Forker("speaker.py", log=tmp_path_factory.mktemp("speaker") / "log")
    yield speaker
    speaker.close()


def test_every_point_of_commands_and_of_starts_is_died_at_here() -> None:
    of_wishes = [f"{COMMIT}:before", f"{COMMIT}:after"]
    assert {point for point in points() if point.startswith(SAID)} == {*of_wishes, *STARTS, *TELLS}


@pytest.mark.parametrize("wish", WISHES.values(), ids=WISHES)
def test_a_wish_is_there_whole_or_not_at_all_and_can_be_made_again(wish: Wish, works: Works, speaker: Forker) -> None:
    words = [str(word) for word in wish.words(works)]
    before = everything(works)
    assert not wish.holds(works)
    die(speaker, works, words, at=f"{COMMIT}:before#{wish.commits}")
    assert everything(works) == before
    die(speaker, works, words, at=f"{COMMIT}:after#{wish.commits}")
    assert wish.holds(works)
    there = everything(works)
    answer = say(speaker, works, words)
    assert (answer["code"], wish.again in " ".join(answer["said"].split())) == (wish.code, True), answer
    assert (everything(works) != there) is wish.is_done_again


def test_a_command_that_somebody_types_dies_where_it_is_told_to(works: Works) -> None:
    command = [sys.executable, "-m", "ccat", "pause", "--all", "--because", BECAUSE]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CCAT_")}
    environment |= {"CCAT_OPS_DB_URL": url_of(works), "CCAT_CRASH_AT": f"{COMMIT}:after"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-SIGKILL, "", "")
    assert _paused(works) == [BECAUSE]


def test_a_worker_that_dies_when_it_starts_is_started_again(
    works: Works, speaker: Forker, redis_address: RedisAddress
) -> None:
    location = models.DataLocation
    settings = {
        "REDIS_HOST": redis_address.host,
        "REDIS_PORT": str(redis_address.port),
        "REDIS_PASSWORD": redis_address.password,
        "PIPELINE_BASE_DIR": str(works.base),
        "PROCESSING_LOCATION_ID": str(works.location_id),
    }
    environment = {f"CCAT_WORKFLOW_MANAGER_{name}": value for name, value in settings.items()}
    here = location.id == works.location_id
    now = sa.select(location.lease_until > sa.func.now(), location.free_bytes > 0).where(here)
    for point in STARTS:
        moment = datetime.now(UTC)
        leased = {"claimed_by": one_that_is_gone(), "lease_until": moment + timedelta(hours=1)}
        full = {"free_bytes": 0, "total_bytes": 9, "space_checked_at": moment}
        works.execute(sa.update(location).where(here).values(**leased, **full))
        die(speaker, works, ["celery-worker"], at=point, **environment)
        assert works.session(lambda session: session.execute(now).all()) == [(point != STARTS[-1], False)], point
        die(speaker, works, ["celery-worker"], at=HAS_SEEN, **environment)
        assert works.session(lambda session: session.execute(now).all()) == [(False, True)], point


def test_a_transfer_worker_that_dies_as_it_says_what_it_serves_says_it_at_its_next_start(
    works: Works, speaker: Forker, redis_address: RedisAddress
) -> None:
    location = models.DataLocation
    settings = {"HOST": redis_address.host, "PORT": str(redis_address.port), "PASSWORD": redis_address.password}
    environment = {f"CCAT_DATA_TRANSFER_REDIS_{name}": value for name, value in settings.items()}
    for point in TELLS:
        works.execute(sa.update(location).values(served_at=None))
        die(speaker, works, ["transfer-worker"], at=point, **environment)
        served = works.session(lambda session: set(session.scalars(sa.select(location.served_at.is_not(None)))))
        assert served == {point == TELLS[-1]}


def one_that_is_gone() -> str:
    """How a process of this host signed its claims that had the number of this one before it."""
    return re.sub(r"\[(\d+)\.\d+", r"[\1.1", claimant("worker"))


def say(speaker: Forker, works: Works, words: Sequence[str], **environment: str) -> dict[str, Any]:
    variables = {"CCAT_OPS_DB_URL": url_of(works), **environment}
    return speaker.ask(words=words, environment=variables, directory=str(works.root))


def die(speaker: Forker, works: Works, words: Sequence[str], *, at: str, **environment: str) -> None:
    answer = say(speaker, works, words, CCAT_CRASH_AT=at, **environment)
    assert answer["code"] == -SIGKILL, (at, answer)


def url_of(works: Works) -> str:
    return works.engine.url.render_as_string(hide_password=False)


def everything(works: Works) -> dict[str, list[str]]:
    """All rows of all tables."""
    with works.engine.connect() as connection:
        return {
            table.name: sorted(connection.scalars(sa.text(f'SELECT one::text FROM "{table.name}" one')))  # noqa: S608 - our tables
            for table in Base.metadata.sorted_tables
        }
