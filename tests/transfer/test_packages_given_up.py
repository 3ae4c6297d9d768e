"""A person says that a raw package is gone for good: nobody is told of it any more, unless it is taken up again."""

import json
from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_ops_db import models
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, PackageState
from tests.transfer.support import START, Observatory, say

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
