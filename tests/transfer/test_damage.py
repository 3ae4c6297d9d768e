"""That an archive copy was found bad is told and listed, also where it was mended before anybody could look."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind
from tests.transfer.support import START, Observatory, say
from tests.transfer.test_replication import check_copy, damage, read_again, tar_of

FILES = {"2026-04-01/a.fits": b"a" * 20_000, "2026-04-01/b.txt": b"cloudy"}


@pytest.fixture
def package_id(observatory: Observatory) -> int:
    number = observatory.observe(FILES)
    observatory.do_all()
    return number


def told(observatory: Observatory) -> list[str]:
    with transaction(observatory.engine) as session:
        found = [one for one in conditions(session, late=START) if one.kind is AlertKind.LOST_COPY]
    return [one.sentence for one in found]


def listed(observatory: Observatory, *words: str) -> Sequence[dict[str, object]]:
    found: Sequence[dict[str, object]] = json.loads(say(observatory, "transfer", "damage", *words, "--json"))
    return found


def counted(observatory: Observatory) -> dict[str, tuple[int, int, int]]:
    status = json.loads(say(observatory, "transfer", "status", "--json"))
    return {one["archive"]: (one["damaged"], one["gone"], one["unmended"]) for one in status["damage"]}


def test_rot_that_heals_at_once_leaves_a_trace(observatory: Observatory, package_id: int) -> None:
    assert (told(observatory), listed(observatory), counted(observatory)) == ([], [], {})
    path = observatory.copies(package_id)["cologne/lta"].path
    damage(tar_of(observatory, package_id))
    observatory.request_staging([package_id])
    observatory.do_all()
    check_copy(observatory, package_id, "cologne/lta")

    [sentence] = told(observatory)
    today = datetime.now(UTC)
    assert sentence.startswith(
        f"1 archive copy was found damaged or gone at cologne/lta on {today:%F}, and replaced since then, such as "
        f"{path}: "
    )
    [one] = listed(observatory)
    assert (one["archive"], one["path"], one["was"], one["by"]) == ("cologne/lta", path, "corrupt", "worker")
    assert (one["mended"], one["made_from"]) == ("archived, and read back there", "ccat/buffer")
    assert "registered" in str(one["because"])
    assert counted(observatory) == {"cologne/lta": (1, 0, 0)}
    assert "1 archive copy was found bad in the last 30 days" in say(observatory, "transfer", "status")
    assert "1 archive copy" in say(observatory, "transfer", "damage")


def test_what_is_bad_still_is_told_of_as_such_and_listed(observatory: Observatory, package_id: int) -> None:
    tar_of(observatory, package_id).unlink()
    read_again(observatory, package_id)
    [sentence] = told(observatory)
    assert sentence.startswith("1 archive copy is damaged or gone at cologne/lta")
    assert [(one["was"], one["is_mended"]) for one in listed(observatory)] == [("missing", False)]
    assert counted(observatory) == {"cologne/lta": (0, 1, 1)}


def test_people_are_told_of_each_day_anew_and_of_none_for_ever(observatory: Observatory, package_id: int) -> None:
    damage(tar_of(observatory, package_id))
    read_again(observatory, package_id)
    observatory.do_all()
    with transaction(observatory.engine) as session:
        [before] = [one.key for one in conditions(session, late=START) if one.kind is AlertKind.LOST_COPY]
    assert before == f"found bad cologne/lta {datetime.now(UTC).date()}"
    let_days_pass(observatory, 2)
    assert told(observatory) == []
    assert (len(listed(observatory)), counted(observatory)) == (1, {"cologne/lta": (1, 0, 0)})
    let_days_pass(observatory, 30)
    assert (listed(observatory), counted(observatory)) == ([], {})
    assert len(listed(observatory, "--days", "100")) == 1


def let_days_pass(observatory: Observatory, days: int) -> None:
    change = models.StatusChange
    with transaction(observatory.engine) as session:
        session.execute(sa.update(change).values(at=change.at - timedelta(days=days)))
