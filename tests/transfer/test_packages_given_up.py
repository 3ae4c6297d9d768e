"""A person says that a raw package is gone for good: nobody is told of it any more, unless it is taken up again."""

import json
from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.activity import activity
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, PackageState, PhysicalCopyStatus
from tests.transfer.support import START, Observatory, say
from tests.transfer.test_last_copies import elsewhere, lose_everything
from tests.transfer.test_replication import tar_of

FILES = {"a.fits": b"a" * 1000, "b.txt": b"cloudy"}


@pytest.fixture
def package_id(observatory: Observatory) -> int:
    """A package that failed, as one of its raw files is gone."""
    number = observatory.observe(FILES)
    (observatory.directory("ccat/chai_raw_data") / "a.fits").unlink()
    assert observatory.do(Operation.PACKING) == 1
    assert observatory.package(number).state is PackageState.FAILED
    return number


def told(observatory: Observatory) -> Sequence[str]:
    with transaction(observatory.engine) as session:
        found = [one for one in conditions(session, late=START) if one.kind is AlertKind.FAILED_FOR_GOOD]
    return [one.sentence for one in found]


def give_up(observatory: Observatory, package_id: int, *words: str, code: int = 0) -> str:
    return say(
        observatory, "package", "give-up", str(package_id), "--because", "a disk of CHAI died", *words, code=code
    )


def test_what_a_person_gives_up_is_told_of_no_more_and_listed_with_the_reason(
    observatory: Observatory, package_id: int
) -> None:
    [sentence] = told(observatory)
    assert "1 raw package cannot be archived: " in sentence
    assert sentence.endswith("`ccat package give-up PACKAGE` where one is gone for good")
    assert "is given up" in give_up(observatory, package_id)
    assert told(observatory) == []
    [listed] = json.loads(say(observatory, "packages", "--state", "failed", "--json"))
    assert listed["given_up"].startswith("a disk of CHAI died (")
    assert listed["failure"]
    assert json.loads(give_up(observatory, package_id, "--json")) == {"package": package_id, "changed": False}


def test_what_was_given_up_may_be_taken_up_again_and_is_told_of_again_if_it_fails(
    observatory: Observatory, package_id: int
) -> None:
    give_up(observatory, package_id)
    say(observatory, "package", "retry", str(package_id))
    package = observatory.package(package_id)
    assert (package.state, package.given_up_at, package.given_up_because) == (PackageState.WAITING, None, None)
    assert observatory.do(Operation.PACKING) == 1
    assert len(told(observatory)) == 1

    give_up(observatory, package_id)
    (observatory.directory("ccat/chai_raw_data") / "a.fits").write_bytes(FILES["a.fits"])
    say(observatory, "package", "retry", str(package_id))
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED


def test_only_what_has_failed_is_given_up_and_not_without_a_reason(observatory: Observatory, package_id: int) -> None:
    assert "`--because` is empty" in say(observatory, "package", "give-up", str(package_id), "--because", " ", code=1)
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.RawDataPackage).values(state="waiting"))
    assert "is waiting; what can be given up is a failed one" in give_up(observatory, package_id, code=1)


def test_a_package_that_was_lost_once_it_was_archived_is_given_up_and_calls_for_nothing_more(
    observatory: Observatory,
) -> None:
    number = lost_package(observatory)
    assert "NO copy of 1 raw package" in " ".join(alerts(observatory))
    assert f"`ccat package exclude {number}`" in give_up(observatory, number)
    assert [one for one in alerts(observatory) if "replaced since then" not in one] == []

    [listed] = json.loads(say(observatory, "packages", "--json"))
    assert (listed["state"], listed["given_up"].startswith("a disk of CHAI died (")) == ("archived", True)
    told = json.loads(say(observatory, "transfer", "status", "--json"))
    stages = {one["stage"]: one["packages"] for one in told["stages"]}
    assert (stages["given up"], stages["archived"], "archived and no copy left" in stages) == (1, 0, False)
    assert told["backlog_bytes"] == 0
    night = json.loads(say(observatory, "night", "--json"))
    assert (night["packages"], night["unarchived"]) == ({"given up": 1}, 1)
    [hindrance] = night["hindrances"]
    assert hindrance["place"] == "given up"
    assert hindrance["sentence"].startswith("a disk of CHAI died (")
    assert json.loads(give_up(observatory, number, "--json"))["changed"] is False
    observatory.do_all()
    assert observatory.package(number).given_up_at is not None


def lost_package(observatory: Observatory) -> int:
    number = observatory.observe({f"2026-04-01/{name}": data for name, data in FILES.items()})
    observatory.do_all()
    lose_everything(observatory, number)
    return number


def alerts(observatory: Observatory) -> Sequence[str]:
    with transaction(observatory.engine) as session:
        return [one.sentence for one in conditions(session, late=START)]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_lost_package_that_was_given_up_is_taken_back_by_a_retry_and_told_of_if_it_is_not_there(
    observatory: Observatory, *, is_there: bool
) -> None:
    number = lost_package(observatory)
    give_up(observatory, number)
    if is_there:
        elsewhere(observatory).rename(tar_of(observatory, number))
    say(observatory, "package", "retry", str(number))
    while observatory.read_again():
        observatory.do_all()
    package = observatory.package(number)
    assert (package.given_up_at, package.given_up_because) == (None, None)
    assert ("NO copy of 1 raw package" in " ".join(alerts(observatory))) is not is_there


def test_a_package_that_was_given_up_is_not_any_more_once_a_tar_of_it_is_there(observatory: Observatory) -> None:
    number = lost_package(observatory)
    give_up(observatory, number)
    coming = observatory.copies(number)["ccat/buffer"]
    with transaction(observatory.engine) as session:
        to = PhysicalCopyStatus.PRESENT
        assert advance(session, models.PhysicalCopy, [coming.id], to=to, because="a test", by="a test")
    assert observatory.package(number).given_up_at is None


def test_a_package_of_which_there_is_a_copy_is_not_given_up(observatory: Observatory) -> None:
    number = observatory.observe(FILES)
    observatory.do_all()
    assert "is archived; what can be given up is a failed one, or an archived one of which no copy" in give_up(
        observatory, number, code=1
    )


def test_what_was_given_up_waits_for_nobody(observatory: Observatory, package_id: int) -> None:
    for failed in (1, 0):
        with transaction(observatory.engine) as session:
            assert activity(session).failed_packages == failed
        give_up(observatory, package_id)


def test_what_failed_and_was_given_up_is_counted_apart(observatory: Observatory, package_id: int) -> None:
    give_up(observatory, package_id)
    stages = {
        one["stage"]: one["packages"] for one in json.loads(say(observatory, "transfer", "status", "--json"))["stages"]
    }
    assert (stages["failed"], stages["given up"]) == (0, 1)
    assert json.loads(say(observatory, "night", "--json"))["packages"] == {"given up": 1}
