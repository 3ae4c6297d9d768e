"""Descriptions of an earlier version are brought up to date without an ado; what is damaged is told of as ever."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ccat_data_transfer.descriptions import Flaw, flaw
from ccat_data_transfer.verbs.scrubbing import scrub
from tests.transfer.support import Observatory

ARCHIVE = "cologne/lta"
FILES = {"a.fits": b"a" * 3000, "b.fits": b"b"}
REWRITTEN = "what describes archived data is written anew"
NOW = {"schema_version": 3, "tar": {"name": "x", "rank": 1}, "files": [{"id": 1, "path": "a"}], "lost": []}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            {"schema_version": 1, "tar": {"name": "x"}, "files": [{"path": "a"}]},
            Flaw("is of version 1", is_outdated=True),
        ),
        ({**NOW, "schema_version": 2}, Flaw("is of version 2", is_outdated=True)),
        ({**NOW, "schema_version": 4}, Flaw("says something else of schema_version")),
        ({"tar": NOW["tar"]}, Flaw("says something else of files, lost, schema_version")),
        ({**NOW, "schema_version": 2, "files": []}, Flaw("says something else of files, schema_version")),
        ({**NOW, "schema_version": 2, "tar": {"name": "y"}}, Flaw("says something else of schema_version, tar")),
        ({**NOW, "schema_version": 2, "note": 1}, Flaw("says something else of note, schema_version")),
    ],
    ids=["1", "2", "later", "none", "fewer files", "another name", "more"],
)
def test_a_description_is_outdated_if_it_says_what_an_earlier_version_did(told: dict[str, Any], expected: Flaw) -> None:
    assert flaw(json.dumps(told).encode(), json.dumps(NOW).encode()) == expected


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.text(), some),
)


@given(st.dictionaries(st.text(), values), st.data())
def test_whatever_an_earlier_version_leaves_out_it_is_only_outdated(known: dict[str, Any], data: st.DataObject) -> None:
    left = {name: known[name] for name in known if data.draw(st.booleans())}
    found, wanted = ({**one, "schema_version": version} for one, version in ((left, 1), (known, 2)))
    assert flaw(json.dumps(found).encode(), json.dumps(wanted).encode()) == Flaw("is of version 1", is_outdated=True)


def of_version_1(told: dict[str, Any]) -> None:
    told["schema_version"] = 1
    del told["observation"]["expected_files"], told["lost_files"]
    for file in told["files"]:
        del file["id"]


def damaged(told: dict[str, Any]) -> None:
    of_version_1(told)
    told["files"][0]["checksum"] = "sha256:" + "0" * 64


@pytest.mark.parametrize(("change", "level"), [(of_version_1, "debug"), (damaged, "warning")])
def test_nobody_is_warned_of_a_description_that_is_only_of_an_earlier_version(
    observatory: Observatory, change: Callable[[dict[str, Any]], None], level: str
) -> None:
    package_id = observatory.observe(FILES)
    observatory.do_all()
    copy = observatory.copies(package_id)[ARCHIVE]
    sidecar = (observatory.directory(ARCHIVE) / copy.path).with_suffix(".json")
    right = sidecar.read_bytes()
    told = json.loads(right)
    change(told)
    sidecar.chmod(0o600)
    sidecar.write_text(json.dumps(told, indent=2) + "\n")
    with capture_logs() as logs:
        scrub(observatory.worker, [copy.id])
    assert [one["log_level"] for one in logs if one["event"] == REWRITTEN] == [level]
    assert sidecar.read_bytes() == right
    with capture_logs() as logs:
        scrub(observatory.worker, [copy.id])
    assert [one for one in logs if one["event"] == REWRITTEN] == []
