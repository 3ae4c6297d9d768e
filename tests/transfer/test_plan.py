import uuid
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccat_data_transfer.plan import (
    FILES_AT_ONCE,
    GROUPS_AT_ONCE,
    UnpackedFile,
    UnpackedFiles,
    batches,
    divide,
    is_time_to_pack,
    package_name,
    tar_bytes,
    tar_path,
)

NOW = datetime(2026, 4, 1, 3, tzinfo=UTC)
QUIET_PERIOD = timedelta(minutes=5)
LIMIT = 100_000

files = st.lists(
    st.builds(
        UnpackedFile,
        id=st.builds(uuid.uuid4),
        relative_path=st.text("aü/", min_size=1),
        size_bytes=st.integers(0, LIMIT),
        location_id=st.integers(1, 2),
    ),
    unique_by=lambda file: file.relative_path,
    max_size=20,
)


def unpacked(
    *, seconds_ago: int = 0, ended: bool = True, expected: int | None = 2, registered: int = 2, number: int = 1
) -> UnpackedFiles:
    return UnpackedFiles(
        group=(uuid.uuid4(), 1),
        number=number,
        last_file_at=NOW - timedelta(seconds=seconds_ago),
        scan_ended=ended,
        expected_files=expected,
        registered_files=registered,
    )


@given(files, st.data())
def test_every_file_is_in_exactly_one_package_whatever_order_files_come_in(
    files: list[UnpackedFile], data: st.DataObject
) -> None:
    packages = divide(files, limit_bytes=LIMIT)
    shuffled = data.draw(st.permutations(files))

    assert sorted(file.id for package in packages for file in package) == sorted(file.id for file in files)
    assert all(packages)
    assert divide(shuffled, limit_bytes=LIMIT) == packages


@given(files)
def test_no_package_is_over_the_limit_unless_one_file_alone_is_and_none_spans_two_locations(
    files: list[UnpackedFile],
) -> None:
    for package in divide(files, limit_bytes=LIMIT):
        size = tar_bytes((file.relative_path, file.size_bytes) for file in package)
        assert size <= LIMIT or len(package) == 1
        assert len({file.location_id for file in package}) == 1


@given(st.lists(st.integers(1, FILES_AT_ONCE + 1), max_size=30))
def test_every_group_is_in_one_batch_in_its_turn_and_no_batch_is_too_large_but_for_a_group_alone(
    numbers: list[int],
) -> None:
    waiting = [unpacked(number=number) for number in numbers]
    found = list(batches(waiting))
    sizes = {one.group: one.number for one in waiting}
    assert [group for batch in found for group in batch] == [one.group for one in waiting]
    assert all(sum(sizes[group] for group in batch) <= FILES_AT_ONCE or len(batch) == 1 for batch in found)


def test_many_small_groups_make_batches_of_so_many() -> None:
    found = batches(unpacked() for _ in range(GROUPS_AT_ONCE + 1))
    assert [len(batch) for batch in found] == [GROUPS_AT_ONCE, 1]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (unpacked(), True),
        (unpacked(registered=3), True),
        (unpacked(registered=1), False),
        (unpacked(ended=False), False),
        (unpacked(expected=None), False),
        (unpacked(registered=1, seconds_ago=299), False),
        (unpacked(registered=1, seconds_ago=300), True),
        (unpacked(ended=False, expected=None, seconds_ago=300), True),
    ],
)
def test_packing_waits_for_a_complete_scan_or_a_quiet_period(files: UnpackedFiles, *, expected: bool) -> None:
    assert is_time_to_pack(files, now=NOW, quiet_period=QUIET_PERIOD) is expected


def test_a_package_is_called_by_what_people_look_for() -> None:
    scan_id = uuid.UUID("9f86d081-884c-4d65-9a2f-eaa0c55ad015")
    start = datetime(2026, 3, 31, 22, 15, tzinfo=UTC)
    name = package_name("CHAI", "LFA", started_at=start, scan_id=scan_id, part=2)

    assert name == "CHAI-LFA-20260331T221500Z-9f86d081-p2"
    assert tar_path(name, date(2026, 3, 31)) == f"raw/2026-03-31/{name}.tar"


@given(st.text(), st.text())
def test_a_package_name_is_safe_in_a_path_whatever_instruments_are_called(instrument: str, module: str) -> None:
    name = package_name(instrument, module, started_at=NOW, scan_id=uuid.uuid4(), part=1)

    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
    assert not name.startswith("-")


MODULES = st.tuples(st.text("A.-", min_size=1, max_size=3), st.text("A.-", min_size=1, max_size=3))


@given(MODULES, MODULES)
def test_packages_of_two_modules_are_called_alike_by_no_chance(one: tuple[str, str], other: tuple[str, str]) -> None:
    scan_id = uuid.uuid4()
    names = {package_name(*both, started_at=NOW, scan_id=scan_id, part=1) for both in (one, other)}
    assert len(names) == len({one, other})


def test_the_name_of_a_package_fits_into_a_directory_however_long_that_of_its_instrument_is() -> None:
    name = package_name("I" * 1000, "M" * 1000, started_at=NOW, scan_id=uuid.uuid4(), part=123_456)
    assert len(f"{name}.tar.json") < 200
