"""What failures have in common, and what sets them apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db.states import FailureClass
from ccat_workflow_manager.plan.fingerprints import fingerprint, normalised

ALIKE = [
    (
        "no line found at 1461.13 GHz in '/data/pipelines/7/m17/calibrate/812/attempt-1/input/raw/a.fits'",
        "no line found at 492.2 GHz in '/data/pipelines/7/m42/calibrate/99/attempt-3/input/raw/b.fits'",
    ),
    (
        "2026-04-05T01:02:03.5Z: HDU 3 of scan_17.fits is broken",
        "2026-11-29T14:00:00Z: HDU 12 of scan_2.fits is broken",
    ),
    ("cannot open /a/b.fits: no such file", "cannot open /c/d/e.fits: no such file"),
    ("segmentation fault at 0x7fff5694", "segmentation fault at 0x55aa01"),
    ("run 6f1c2f4e-2f7b-4c53-9d5e-0a1b2c3d4e5f is unknown", "run 00000000-1111-2222-3333-444444444444 is unknown"),
    ("commit deadbeef01 is bad", "commit 0123abcdef is bad"),
    ("KeyError: 'opacity'", 'KeyError: "beam"'),
    ("killed  by SIGKILL", "Killed by SIGKILL "),
    ("only 3 of 7 inputs", "only 0 of 12,000 inputs"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_what_differs_from_run_to_run_makes_no_difference(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert fingerprint(FailureClass.PAYLOAD, one) == fingerprint(FailureClass.PAYLOAD, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no line found", "no beam found"),
        ("KeyError: 'a'", "ValueError: 'a'"),
        ("cannot open /a/b", "cannot read /a/b"),
    ],
)
def test_other_words_are_another_failure(one: str, other: str) -> None:
    assert fingerprint(FailureClass.PAYLOAD, one) != fingerprint(FailureClass.PAYLOAD, other)


def test_the_same_words_of_another_kind_are_another_failure() -> None:
    assert fingerprint(FailureClass.PAYLOAD, "it failed") != fingerprint(FailureClass.DATA, "it failed")


@given(st.text(max_size=300), st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_number_makes_no_difference_whatever_is_around_it(text: str, one: int, other: int) -> None:
    made = [fingerprint(FailureClass.PAYLOAD, f"{text} {number} {text}") for number in (one, other)]
    assert made[0] == made[1]
    assert len(made[0]) == 12
