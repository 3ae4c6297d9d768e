"""Rules by name: what each preset stands for, and what a person reads who uses one wrongly."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.grouping.checking import check_rules
from ccat_ops_db.grouping.compile import select_packages
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import Preset, expand, presets
from ccat_ops_db.grouping.rules import InvalidRule, parse_rules
from ccat_ops_db.session import transaction
from tests.engine.conftest import OpsDb
from tests.engine.database import archive, plan

NOW = datetime(2026, 4, 20, 12, tzinfo=UTC)
NIGHT = "2026-04-18"
USES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "by-source": ({"source": "M17"}, ["m17", "m17-hfa"]),
    "by-instrument": ({"instrument": "CHAI"}, ["m17", "m17-hfa", "saturn"]),
    "by-module": ({"instrument": "CHAI", "module": "HFA"}, ["m17-hfa"]),
    "by-program": ({"program": "Planets"}, ["saturn"]),
    "by-line": ({"line": "CO43"}, ["m17", "m17-hfa"]),
    "by-night": ({"night": NIGHT}, ["saturn"]),
    "between-nights": ({"first": "2026-04-01", "last": NIGHT}, ["m17", "saturn"]),
    "last-days": ({"days": 3}, ["m17-hfa", "saturn"]),
    "cone": ({"ra_deg": 275.2, "dec_deg": -16.0, "radius_deg": 0.5}, ["m17", "m17-hfa"]),
}


@pytest.fixture(scope="module")
def selected(clean_ops_db: OpsDb) -> Any:
    """What rules select among a few packages."""
    with clean_ops_db() as engine, transaction(engine) as session:
        session.add(models.FixedSource(name="M17", ra_deg=275.2, dec_deg=-16.2))
        plan(session, "M17 map", source="M17")
        plan(session, "Saturn scan", source="Saturn", program="Planets")
        session.execute(sa.update(models.ObsUnit).where(models.ObsUnit.name == "M17 map").values(line_id="CO43"))
        archive(session, "m17", observation="M17 map", at=NOW - timedelta(days=9))
        archive(session, "m17-hfa", observation="M17 map", at=NOW - timedelta(hours=9), module="CHAI/HFA")
        archive(session, "saturn", observation="Saturn scan", at=NOW - timedelta(days=1, hours=9))

        def select(*rules: Any) -> list[str]:
            checked = check_rules(parse_rules(expand(rules, presets())), catalogue())
            return [row.name for row in session.execute(select_packages(checked, [], now=NOW))]

        yield select
        session.rollback()


def test_every_preset_is_tried() -> None:
    assert USES.keys() == presets().keys()


@pytest.mark.parametrize("name", presets())
def test_a_preset_selects_what_it_says(selected: Any, name: str) -> None:
    said, expected = USES[name]
    assert presets()[name].description.endswith(".")
    assert selected({"preset": name, "with": said}) == expected


def test_a_preset_stands_wherever_a_rule_stands(selected: Any) -> None:
    m17, recent = ({"preset": name, "with": USES[name][0]} for name in ("by-source", "last-days"))
    assert selected({"any": [{"not": m17}, {"all": [m17, recent]}]}) == ["m17-hfa", "saturn"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"preset": "by-sorce"}, "rules[0].preset: there is no preset `by-sorce`. Did you mean `by-source`?"),
        ({"preset": ["cone"]}, "rules[0].preset: there is no preset `['cone']`. Did you mean `cone`?"),
        ({"preset": "cone", "wiht": {}}, "rules[0].wiht: a preset has no key `wiht`. Did you mean `with`?"),
        ({"preset": "by-source", "with": "M17"}, "rules[0].with: it is a mapping with `source`, not 'M17'."),
        (
            {"preset": "by-source", "with": {"sorce": "M17"}},
            "rules[0].with.sorce: preset `by-source` has no parameter `sorce`. Did you mean `source`?",
        ),
        (
            {"preset": "by-module", "with": {"instrument": "CHAI"}},
            "rules[0].with: `module` is missing; preset `by-module` takes `instrument`, `module`.",
        ),
        ({"preset": "by-source"}, "rules[0].with: `source` is missing; preset `by-source` takes `source`."),
        ({"preset": "by-source", "with": {"source": 17}}, "rules[0].with.source: it is text, not 17."),
        ({"preset": "by-night", "with": {"night": "today"}}, "rules[0].with.night: it is a date such as 2026-04-01, "),
        ({"preset": "last-days", "with": {"days": 0}}, "rules[0].with.days: it is a whole number from 1 to 100000, "),
        (
            {"preset": "last-days", "with": {"days": True}},
            "rules[0].with.days: it is a whole number from 1 to 100000, ",
        ),
        (
            {"preset": "cone", "with": {"ra_deg": "17h", "dec_deg": 0, "radius_deg": 1}},
            "rules[0].with.ra_deg: it is a number, not '17h'.",
        ),
        (
            {"any": [{"preset": "cone", "with": {"ra_deg": 400, "dec_deg": 0, "radius_deg": 1}}]},
            "rules[0].any[0].all[0].cone.ra_deg: it is a number of degrees from 0 to 360, not 400.",
        ),
    ],
)
def test_a_preset_that_is_used_wrongly_is_refused_with_its_place(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRule) as caught:
        check_rules(parse_rules(expand([said], presets())), catalogue())
    assert str(caught.value).startswith(message)


def test_what_is_stored_does_not_change_with_a_preset() -> None:
    mine = {"mine": Preset("Mine.", {"n": "count"}, [{"table": "RawDataPackage", "value": "{n}", "label": "n={n}"}])}
    filled = expand([{"preset": "mine", "with": {"n": 3}}], mine)
    assert filled == [{"all": [{"table": "RawDataPackage", "value": 3, "label": "n=3"}]}]
