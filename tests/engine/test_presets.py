"""Rules by name: what each preset stands for, and what a person reads who uses one wrongly."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.grouping.compile import select_packages
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import Preset, check_written, expand, presets
from ccat_ops_db.grouping.rules import InvalidRule
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
M17 = {"preset": "by-source", "with": {"source": "M17"}}
PRESETS = (
    "Known: `between-nights`, `by-instrument`, `by-line`, `by-module`, `by-night`, `by-program`, `by-source`, "
    "`cone`, `last-days`."
)


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
            _, checked = check_written(rules, catalogue(), presets())
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
        ({"preset": "By-Source"}, "rules[0].preset: there is no preset `By-Source`. Did you mean `by-source`?"),
        *(
            ({"preset": said}, f"rules[0].preset: there is no preset `{shown}`. {PRESETS}")
            for said, shown in ((None, "null"), ([], "[]"), ({}, "{}"), (True, "true"), (5, "5"), ("", ""))
        ),
        ({"preset": ["cone"]}, 'rules[0].preset: there is no preset `["cone"]`. Did you mean `cone`?'),
        (
            {"preset": "cone", "table": "Source"},
            "rules[0].table: a preset has no key `table`. Known: `preset`, `with`.",
        ),
        ({"preset": "cone", "any": []}, "rules[0].any: a preset has no key `any`. Known: `preset`, `with`."),
        ({"not": [M17]}, f"rules[0].not: a rule is a mapping, not {json.dumps([M17])}."),
        ({"any": M17}, f"rules[0].any: it is a list of rules, not {json.dumps(M17)}."),
        ({"preset": "cone", "wiht": {}}, "rules[0].wiht: a preset has no key `wiht`. Did you mean `with`?"),
        *(
            ({"preset": "by-source", "with": said}, f"rules[0].with: it is a mapping with `source`, not {shown}.")
            for said, shown in (("M17", '"M17"'), (None, "null"), ([], "[]"), (["M17"], '["M17"]'), (17, "17"))
        ),
        (
            {"preset": "by-source", "with": {"source": "M17", "x": 1}},
            "rules[0].with.x: preset `by-source` has no parameter `x`. Known: `source`.",
        ),
        (
            {"preset": "by-source", "with": {"sorce": "M17"}},
            "rules[0].with.sorce: preset `by-source` has no parameter `sorce`. Did you mean `source`?",
        ),
        (
            {"preset": "by-module", "with": {"instrument": "CHAI"}},
            "rules[0].with: `module` is missing; preset `by-module` takes `instrument`, `module`.",
        ),
        *(
            (said, "rules[0].with: `source` is missing; preset `by-source` takes `source`.")
            for said in ({"preset": "by-source"}, {"preset": "by-source", "with": {}})
        ),
        *(
            ({"preset": "by-source", "with": {"source": said}}, f"rules[0].with.source: it is text, not {shown}.")
            for said, shown in ((17, "17"), (None, "null"), (["M17"], '["M17"]'), ({"like": "M%"}, '{"like": "M%"}'))
        ),
        ({"preset": "by-source", "with": {"source": ""}}, "rules[0].with.source: it is empty."),
        ({"preset": "by-night", "with": {"night": ""}}, "rules[0].with.night: it is empty."),
        (
            {"preset": "by-source", "with": {"source": True}},
            (
                "rules[0].with.source: it is text, not true. "
                "YAML reads `yes`, `on` and `true` as true; write it in quotes."
            ),
        ),
        (
            {"preset": "by-source", "with": {"source": "M\x0017"}},
            'rules[0].with.source: "M\\u000017" has a character that the database cannot hold.',
        ),
        *(
            (
                {"preset": "by-night", "with": {"night": said}},
                f"rules[0].with.night: it is a date that there is, such as 2026-04-01, not {json.dumps(said)}.",
            )
            for said in (
                "today",
                "2026-02-30",
                "2026-13-01",
                "2026-04-01T00:00:00Z",
                None,
                20260401,
                {"now": "-1d"},
            )
        ),
        (
            {"preset": "between-nights", "with": {"first": "2026-04-02", "last": "2026-04-01"}},
            'rules[0].with: the lower end comes first: ["2026-04-02", "2026-04-01"] is an empty range.',
        ),
        *(
            (
                {"preset": "last-days", "with": {"days": said}},
                f"rules[0].with.days: it is a whole number from 1 to 36525, not {json.dumps(said)}.",
            )
            for said in (0, -3, 36_526, 1.5, True, "3", None)
        ),
        *(
            (
                {"preset": "cone", "with": {"ra_deg": said, "dec_deg": 0, "radius_deg": 1}},
                f"rules[0].with.ra_deg: it is a number, not {json.dumps(said)}.",
            )
            for said in ("17h", "17", None, True, [1])
        ),
        *(
            (
                {
                    "any": [
                        M17,
                        {"not": {"preset": "cone", "with": {"ra_deg": 1, "dec_deg": 0, "radius_deg": 1} | said}},
                    ]
                },
                f"rules[0].any[1].not.with.{message}.",
            )
            for said, message in (
                ({"ra_deg": 360}, "ra_deg: it is a number of degrees from 0 to 360, not 360"),
                ({"dec_deg": -90.5}, "dec_deg: it is a number of degrees from -90 to 90, not -90.5"),
                ({"radius_deg": 181}, "radius_deg: it is a number of degrees from 0 to 180, not 181"),
                ({"radius_deg": float("nan")}, "radius_deg: it is a number of degrees from 0 to 180, not NaN"),
            )
        ),
    ],
)
def test_a_preset_that_is_used_wrongly_is_refused_with_its_place(said: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRule) as caught:
        check_written([said], catalogue(), presets())
    assert str(caught.value) == message


def test_a_preset_that_is_nested_too_deeply_is_refused_where_it_is_used() -> None:
    said = M17
    for _ in range(20):
        said = {"not": said}
    with pytest.raises(InvalidRule) as refused:
        check_written([said], catalogue(), presets())
    assert str(refused.value) == f"rules[0]{'.not' * 20}: rules are nested more than 20 levels deep."


def test_a_value_that_looks_like_a_preset_is_none() -> None:
    said = {"table": "RawDataPackage", "column": "metadata", "operator": "contains", "value": {"preset": "fast"}}
    stored, _ = check_written([said, {"not": said}], catalogue(), presets())
    assert stored == [said, {"not": said}]


def test_what_is_stored_does_not_change_with_a_preset() -> None:
    mine = {"mine": Preset("Mine.", {"n": "count"}, [{"table": "RawDataPackage", "value": "{n}", "label": "n={n}"}])}
    filled = expand([{"preset": "mine", "with": {"n": 3}}], mine)
    assert filled == [{"all": [{"table": "RawDataPackage", "value": 3, "label": "n=3"}]}]
