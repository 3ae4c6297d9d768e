from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer import plan
from ccat_data_transfer.errors import NoLocation
from ccat_data_transfer.verbs.planning import next_quiet, plan_packages, unpacked_files
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, MODULE, find
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, Status
from tests.transfer.support import Observatory, random_files


def test_planned_files_have_a_package_and_the_package_has_its_way_into_the_archive(observatory: Observatory) -> None:
    package_id = observatory.observe({"a.fits": b"a", "b.fits": b"b"})

    package = observatory.package(package_id)
    transfer = observatory.one(models.LongTermArchiveTransfer)
    assert package.name.startswith("CHAI-LFA-20260401T021500Z-")
    assert package.name.endswith("-p1")
    assert (package.state, transfer.status) == (PackageState.WAITING, Status.PENDING)
    assert transfer.origin_id == observatory.location_id("ccat/buffer")
    assert transfer.destination_id == observatory.location_id("cologne/lta")
    with transaction(observatory.engine) as session:
        assert set(session.scalars(sa.select(models.RawDataFile.raw_data_package_id))) == {package_id}
        assert unpacked_files(session).groups == []


def test_a_late_file_makes_part_two(observatory: Observatory) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, {"a.fits": b"a"})
    (first,) = observatory.plan(scan_id)
    observatory.write(scan_id, {"late.fits": b"late"})
    (second,) = observatory.plan(scan_id)
    observatory.do_all()

    names = [observatory.package(package_id).name for package_id in (first, second)]
    assert [name[-3:] for name in names] == ["-p1", "-p2"]
    assert observatory.package(second).part == 2
    assert {observatory.package(package_id).state for package_id in (first, second)} == {PackageState.ARCHIVED}


def test_what_is_too_much_for_one_package_makes_several(observatory: Observatory) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, random_files(20_000, 20_000, 20_000))

    packages = [observatory.package(one) for one in observatory.plan(scan_id, limit_bytes=60_000)]

    assert [package.part for package in packages] == [1, 2]


def test_each_module_has_packages_of_its_own(observatory: Observatory) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, {"a.fits": b"a"}, module="CHAI/LFA")
    observatory.write(scan_id, {"b.fits": b"b"}, module="CHAI/HFA")

    (lfa,), (hfa,) = observatory.plan(scan_id), observatory.plan(scan_id, module="CHAI/HFA")

    assert (observatory.package(lfa).part, observatory.package(hfa).part) == (1, 1)
    assert "-HFA-" in observatory.package(hfa).name


def test_files_are_counted_over_all_modules_of_a_scan(observatory: Observatory) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, {"a.fits": b"a", "b.fits": b"b"}, module="CHAI/LFA")
    observatory.write(scan_id, {"c.fits": b"c"}, module="CHAI/HFA")
    observatory.plan(scan_id, module="CHAI/HFA")
    observatory.finish_scan(scan_id, expected_files=3)

    with transaction(observatory.engine) as session:
        found = unpacked_files(session)

    (group,) = found.groups
    assert (group.registered_files, group.expected_files, group.scan_ended) == (3, 3, True)
    assert found.now - timedelta(seconds=30) < group.last_file_at < found.now
    assert plan.is_time_to_pack(group, now=found.now, quiet_period=timedelta(minutes=5))


def test_two_that_plan_the_same_scan_at_once_make_one_package(observatory: Observatory) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, {"a.fits": b"a"})
    with transaction(observatory.engine) as session:
        module_id = session.scalars(sa.select(models.RawDataFile.instrument_module_id)).one()
        assert len(plan_packages(session, [(scan_id, module_id)])) == 1
        with transaction(observatory.engine) as other:
            assert plan_packages(other, [(scan_id, module_id)]) == []
    assert observatory.plan(scan_id) == []


def test_a_file_may_be_registered_while_its_scan_is_planned(observatory: Observatory) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, {"a.fits": b"a"})
    with transaction(observatory.engine) as session:
        module_id = session.scalars(sa.select(models.RawDataFile.instrument_module_id)).one()
        plan_packages(session, [(scan_id, module_id)])
        observatory.write(scan_id, {"b.fits": b"b"})

    assert len(observatory.plan(scan_id)) == 1


@pytest.mark.parametrize(("location", "where"), [("ccat/buffer", "at site ccat"), ("cologne/lta", "at any site")])
def test_without_a_place_to_go_nothing_is_planned_and_the_reason_is_said(
    observatory: Observatory, location: str, where: str
) -> None:
    scan_id = observatory.start_scan()
    observatory.write(scan_id, {"a.fits": b"a"})
    with transaction(observatory.engine) as session:
        find(session, LOCATION, location).active = False

    with pytest.raises(NoLocation, match=f"There is no active .* location {where}"):
        observatory.plan(scan_id)
    with transaction(observatory.engine) as session:
        assert len(unpacked_files(session).groups) == 1


def test_people_are_told_of_files_that_get_into_no_package_though_their_scan_was_never_said_to_end(
    observatory: Observatory,
) -> None:
    observatory.write(observatory.start_scan(), {"a.fits": b"a"})
    with transaction(observatory.engine) as session:
        now = session.scalars(sa.select(sa.func.clock_timestamp())).one()
        [told] = conditions(session, late=now)
        assert told.sentence.startswith("1 raw file not in the archive yet, the oldest since ")
        assert told.sentence.endswith(" UTC; `ccat transfer status` says why")
        assert list(conditions(session, late=now - timedelta(hours=1))) == []


def test_many_scans_and_modules_are_planned_together_with_as_many_statements_as_one(observatory: Observatory) -> None:
    groups = [group for _ in range(4) for group in (scan_of(observatory, "CHAI/LFA"), scan_of(observatory, "CHAI/HFA"))]
    counted: list[str] = []
    with transaction(observatory.engine) as session, counting(session, counted):
        one = plan_packages(session, groups[:1])
    statements = len(counted)
    with transaction(observatory.engine) as session, counting(session, counted):
        others = plan_packages(session, groups[1:])

    assert len(counted) == 2 * statements
    made = [observatory.package(number) for number in one + others]
    assert [(package.executed_obs_unit_id, package.instrument_module_id) for package in made] == groups
    assert [package.name.split("-")[1] for package in made] == 4 * ["LFA", "HFA"]
    with transaction(observatory.engine) as session:
        files = session.scalars(sa.select(models.RawDataFile)).all()
        placed = {file.raw_data_package_id: (file.executed_obs_unit_id, file.instrument_module_id) for file in files}
    assert placed == dict(zip(one + others, groups, strict=True))


def scan_of(observatory: Observatory, module: str) -> plan.Group:
    """A scan with two files of a module."""
    scan_id = observatory.start_scan()
    observatory.register(scan_id, {"a.fits": b"a", "b.fits": b"b"}, module=module)
    with transaction(observatory.engine) as session:
        return scan_id, int(find(session, MODULE, module).id)


@contextmanager
def counting(session: Session, statements: list[str]) -> Iterator[None]:
    def note(_: object, __: object, statement: str, *others: object) -> None:
        del others
        statements.append(statement)

    connection = session.connection()
    sa.event.listen(connection, "before_cursor_execute", note)
    yield
    sa.event.remove(connection, "before_cursor_execute", note)


def test_what_somebody_else_plans_now_is_passed_over_and_the_rest_is_planned(observatory: Observatory) -> None:
    first, second = scan_of(observatory, "CHAI/LFA"), scan_of(observatory, "CHAI/LFA")
    with transaction(observatory.engine) as session:
        (mine,) = plan_packages(session, [first])
        with transaction(observatory.engine) as other:
            (theirs,) = plan_packages(other, [first, second])

    assert [observatory.package(one).executed_obs_unit_id for one in (mine, theirs)] == [first[0], second[0]]


def test_it_is_known_when_the_first_of_what_still_comes_in_will_be_quiet(observatory: Observatory) -> None:
    period = timedelta(minutes=5)
    with transaction(observatory.engine) as session:
        assert next_quiet(session, period) is None
    (first, _), _ = scan_of(observatory, "CHAI/LFA"), scan_of(observatory, "CHAI/LFA")
    with transaction(observatory.engine) as session:
        came = sa.select(sa.func.max(models.RawDataFile.created_at)).filter_by(executed_obs_unit_id=first)
        assert next_quiet(session, period) == session.scalars(came).one() + period
        assert next_quiet(session, timedelta()) is None
