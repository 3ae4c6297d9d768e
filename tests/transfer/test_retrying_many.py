"""What many raw packages failed for is mended, and one command takes all of them up again."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs import retrying_many
from ccat_data_transfer.verbs.retrying_many import retry_packages
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import Mover, PackageState
from tests.transfer.support import Observatory, say
from tests.transfer.test_packages_given_up import give_up, told

SEVERAL = 5


def source(observatory: Observatory) -> Path:
    return observatory.directory("ccat/chai_raw_data")


def observe(observatory: Observatory, *, number: int = SEVERAL) -> list[int]:
    return [observatory.observe({f"scan-{one}/a.fits": b"a" * (one + 1)}) for one in range(number)]


def states(observatory: Observatory, packages: Sequence[int]) -> set[PackageState]:
    return {observatory.package(one).state for one in packages}


@pytest.fixture
def failed(observatory: Observatory) -> list[int]:
    """Packages whose raw files are gone for a while, and one that has other files than were registered."""
    packages = observe(observatory)
    other = observatory.observe({"other.fits": b"other"})
    source(observatory).joinpath("other.fits").write_bytes(b"OTHER")
    away = observatory.root / "away"
    away.mkdir()
    for number in range(SEVERAL):
        source(observatory).joinpath(f"scan-{number}").rename(away / f"scan-{number}")
    observatory.do(Operation.PACKING)
    assert states(observatory, [*packages, other]) == {PackageState.FAILED}
    for number in range(SEVERAL):
        (away / f"scan-{number}").rename(source(observatory) / f"scan-{number}")
    return [*packages, other]


def test_those_that_failed_alike_are_one_alert_and_the_command_that_it_names_takes_up_these_alone(
    observatory: Observatory, failed: list[int]
) -> None:
    *alike, other = failed
    [several] = [one for one in told(observatory) if one.startswith(f"{SEVERAL} raw packages cannot be archived")]
    assert f"`ccat package retry --like {alike[0]}` takes up all these once it is mended; " in several
    [single] = [one for one in told(observatory) if one.startswith("1 raw package cannot be archived")]
    assert "--like" not in single
    assert f"{SEVERAL} packages are tried again" in say(observatory, "package", "retry", "--like", str(alike[0]))
    observatory.do_all()
    assert states(observatory, alike) == {PackageState.ARCHIVED}
    assert states(observatory, [other]) == {PackageState.FAILED}
    assert "is archived, so none failed like it" in say(
        observatory, "package", "retry", "--like", str(alike[0]), code=1
    )


def test_all_that_failed_are_taken_up_at_once_but_not_what_was_given_up(
    observatory: Observatory, failed: list[int]
) -> None:
    first, *others, other = failed
    give_up(observatory, first)
    source(observatory).joinpath("other.fits").write_bytes(b"other")
    answer = json.loads(say(observatory, "package", "retry", "--failed", "--json"))
    assert answer == {"retried": [*others, other], "refused": {}}
    observatory.do_all()
    assert states(observatory, [*others, other]) == {PackageState.ARCHIVED}
    assert observatory.package(first).given_up_at is not None
    assert "no package is tried again" in say(observatory, "package", "retry", "--failed")


def test_what_others_have_seen_to_meanwhile_is_named_with_the_reason(
    observatory: Observatory, failed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, *_ = failed
    give_up(observatory, first)
    say(observatory, "package", "retry", str(second))
    monkeypatch.setattr(retrying_many, "_AT_ONCE", 2)
    seen: list[int] = []
    done = retry_packages(observatory.engine, failed[:3], by="Ann", progress=seen.append)
    assert (list(done.retried), seen) == ([second, third], [2, 3])
    [(number, why)] = done.refused.items()
    assert number == first
    assert why.startswith(f"package {observatory.package(first).name} was given up meanwhile; ")
    observatory.do_all()
    done = retry_packages(observatory.engine, [second], by="Ann")
    assert done.refused == {second: f"package {observatory.package(second).name} is archived by now"}


def test_what_crossed_together_and_failed_is_taken_up_in_one_go(far: Observatory) -> None:
    packages = observe(far, number=3)
    with transaction(far.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(method=Mover.BBCP))
    far.do_all()
    assert states(far, packages) == {PackageState.FAILED}
    say(far, "route", "set", "ccat_to_cologne", "--method", "copy")
    assert "3 packages are tried again" in say(far, "package", "retry", "--like", str(packages[-1]))
    far.do_all()
    assert states(far, packages) == {PackageState.ARCHIVED}


def test_one_package_or_one_way_to_say_which_has_to_be_named(observatory: Observatory) -> None:
    for words in ((), ("1", "--failed"), ("--failed", "--like", "1")):
        assert "name a package, or say --failed or" in say(observatory, "package", "retry", *words, code=2)
    assert "There is no raw package 12345" in say(observatory, "package", "retry", "--like", "12345", code=1)
