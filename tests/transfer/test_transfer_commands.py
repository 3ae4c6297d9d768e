"""What people see of data on their way, and what they do about them."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.rates import hours_until_full
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import Mover, PackageState, Status
from tests.transfer.support import Observatory, say


def stages(observatory: Observatory) -> dict[str, tuple[int | None, int]]:
    """Packages and bytes by stage, where there are any."""
    told = json.loads(say(observatory, "transfer", "status", "--json"))["stages"]
    return {one["stage"]: (one["packages"], one["size_bytes"]) for one in told if one["size_bytes"]}


def test_where_everything_is_is_told_at_every_stage(far: Observatory) -> None:
    scan_id = far.start_scan()
    far.write(scan_id, {"a.fits": bytes(100_000)})
    assert stages(far) == {"registered": (None, 100_000)}
    far.finish_scan(scan_id, expected_files=1)
    far.plan(scan_id)
    assert stages(far) == {"to pack": (1, 100_000)}
    far.do(Operation.PACKING)
    assert stages(far) == {"to send": (1, 100_000)}
    far.ship()
    assert stages(far) == {"crossing": (1, 100_000)}
    assert "ccat/buffer → cologne/buffer" in say(far, "transfer", "status")
    assert "0 of 1" in say(far, "transfer", "status")
    assert say(far, "transfer", "status").startswith("100000 bytes not archived yet; in the last 6 h ")
    far.do(Operation.TRANSFERRING)
    far.do(Operation.UNPACKING)
    assert stages(far) == {"to archive": (1, 100_000)}
    far.do_all()
    assert stages(far).keys() == {"archived"}
    told = json.loads(say(far, "transfer", "status", "--json"))
    assert (told["backlog_bytes"], told["crossings"]) == (0, [])
    [crossed] = told["crossed"]
    assert (crossed["origin"], crossed["destination"], crossed["transfers"]) == ("ccat/buffer", "cologne/buffer", 1)
    shown = say(far, "transfer", "status")
    assert shown.startswith("all that was registered is archived; in the last 6 h 100000 bytes were registered, and ")
    assert "1 transfer package arrived whole in the last 6 h" in shown
    assert told["archived_per_hour"] > 100_000 / 6


def test_of_each_package_is_told_in_what_it_crossed_and_where_it_is(far: Observatory) -> None:
    package_id = far.observe({"a.fits": bytes(100_000)})
    [before] = json.loads(say(far, "packages", "--json"))
    assert (before["id"], before["transfer_package"], before["copies"]) == (package_id, None, [])
    far.do_all()
    far.request_staging([package_id])
    far.do_all()
    [after] = json.loads(say(far, "packages", "--json"))
    assert after["transfer_package"].startswith("ccat-cologne-")
    assert after["copies"] == ["ccat/buffer", "cologne/buffer", "cologne/lta", "cologne/ramses"]
    assert "ccat/buffer, cologne/buffer, cologne/lta, cologne/ramses" in say(far, "packages")


def test_how_long_a_source_has_room_is_told_from_how_fast_it_fills(far: Observatory) -> None:
    far.observe({"a.fits": bytes(600_000)})
    source = far.location_id("ccat/chai_raw_data")
    with transaction(far.engine) as session:
        location = session.get_one(models.DataLocation, source)
        location.free_bytes, location.total_bytes, location.space_checked_at = 24_000_000, 240_000_000, sa.func.now()
    told = json.loads(say(far, "transfer", "status", "--json"))
    [level] = [one for one in told["levels"] if one["location"] == "ccat/chai_raw_data"]
    assert (level["filled_per_hour"], level["hours_left"]) == (2_400_000, 10.0)  # a quarter of an hour at least
    assert "10 h" in say(far, "transfer", "status")
    with transaction(far.engine) as session:
        session.get_one(models.DataLocation, source).free_bytes = 240_000_000
    assert "4 days" in say(far, "transfer", "status")
    with transaction(far.engine) as session:
        location = session.get_one(models.DataLocation, source)
        location.free_bytes = location.total_bytes = location.space_checked_at = None


@pytest.mark.parametrize(("free", "rate"), [(None, 5), (5, None), (5, 0), (5, -3)])
def test_what_is_not_known_to_fill_is_never_full(free: int | None, rate: int | None) -> None:
    assert hours_until_full(free, rate) is None


def test_a_transfer_that_was_given_up_fails_its_packages_and_is_retried_with_all_of_them(far: Observatory) -> None:
    packages = [far.observe({f"{number}.fits": b"a"}) for number in range(2)]
    with transaction(far.engine) as session:  # as an older version let people say it
        session.execute(sa.update(models.DataTransferRoute).values(method=Mover.BBCP))
    far.do_all()
    [failed] = [far.one(models.DataTransfer)]
    assert failed.status is Status.FAILED
    for package_id in packages:
        package = far.package(package_id)
        assert package.state is PackageState.FAILED
        assert package.failure is not None
        assert package.failure.endswith(f"Once that is mended, `ccat transfer retry {failed.id}` takes it up again.")
    assert stages(far).keys() == {"failed"}
    say(far, "route", "set", "ccat_to_cologne", "--method", "copy")
    name = far.one(models.DataTransferPackage).name
    assert f"transfer {name} is tried again, with 2 raw packages" in say(far, "transfer", "retry", name)
    far.do_all()
    assert {far.package(one).state for one in packages} == {PackageState.ARCHIVED}
    refused = say(far, "transfer", "retry", str(failed.id), code=1)
    assert "is completed; what can be retried is a failed one" in refused
    for unknown in ("12345678", "ccat-cologne-1", "٣", "9" * 40):
        assert f"There is no data transfer {unknown}" in say(far, "transfer", "retry", unknown, code=1)


def test_a_retry_of_one_package_takes_up_the_transfer_that_failed_with_it(far: Observatory) -> None:
    packages = [far.observe({f"{number}.fits": b"a"}) for number in range(2)]
    with transaction(far.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(method=Mover.BBCP))
    far.do_all()
    with transaction(far.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(method=Mover.COPY))
    say(far, "package", "retry", str(packages[0]))
    far.do_all()
    assert {far.package(one).state for one in packages} == {PackageState.ARCHIVED}


@pytest.mark.parametrize(
    ("option", "number"),
    [("--package-gb", "1e308"), ("--package-gb", "nan"), ("--wait-minutes", "1e300"), ("--wait-minutes", "nan")],
)
def test_numbers_beyond_all_measure_are_refused(far: Observatory, option: str, number: str) -> None:
    assert f"Invalid value for '{option}'" in say(far, "route", "set", "ccat_to_cologne", option, number, code=2)


def routes(observatory: Observatory) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in json.loads(say(observatory, "routes", "--json"))}


def test_routes_are_added_changed_and_listed(far: Observatory) -> None:
    say(far, "route", "add", "cologne", "ccat", "--wait-minutes", "5", "--package-gb", "20")
    say(far, "route", "add", "ccat/buffer", "cologne/lta", "--method", "copy", "--name", "mounted")
    assert {name: (one["type"], one["method"]) for name, one in routes(far).items()} == {
        "ccat_to_cologne": ("direct", "copy"),
        "cologne_to_ccat": ("direct", "rsync"),
        "mounted": ("custom", "copy"),
    }
    assert routes(far)["cologne_to_ccat"]["package_bytes"] == 20 * 10**9
    assert routes(far)["cologne_to_ccat"]["package_wait_seconds"] == 300
    say(far, "route", "set", "mounted", "--inactive")
    assert routes(far)["mounted"]["active"] is False
    assert "3 routes" in say(far, "routes")
    told = [" ".join(line.split()) for line in say(far, "routes").splitlines()]
    assert "cologne_to_ccat cologne ccat direct rsync 20 GB 5 min yes" in told
    assert "ccat_to_cologne ccat cologne direct copy 1.0 TB not at all yes" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ccat", "ccat"), "both are at one site, which needs none"),
        (("ccat", "cologn"), "There is no site `cologn`. Did you mean `cologne`"),
        (("ccat/buffer", "cologne"), "name two sites, or two locations as SITE/NAME"),
        (("ccat/buffer", "cologne/ramses"), "cologne/ramses is a processing location; take a buffer or an archive"),
        (("cologne/lta", "ccat/buffer"), "cologne/lta is a long_term_archive location; packages leave from a buffer"),
        (("ccat", "cologne", "--via", "ccat"), "has to lead from and to other sites"),
        (("ccat/buffer", "cologne/lta", "--via", "ccat"), "leads between sites, and not between locations"),
        (
            ("cologne", "ccat", "--method", "bbcp"),
            "cannot be of the method bbcp, which is foreseen and not built; there",
        ),
        (("ccat", "cologne"), "there is a route of the name ccat_to_cologne: `ccat route set` changes it"),
    ],
)
def test_a_route_that_leads_nowhere_is_refused_with_why(far: Observatory, words: tuple[str, ...], said: str) -> None:
    assert said in " ".join(say(far, "route", "add", *words, code=1).split())
