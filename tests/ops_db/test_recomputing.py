"""What is done about products that are gone, and what is told meanwhile, from values."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db.plan.recomputing import Gone, Remake, Tried, remake, waits

TRIED = st.builds(Tried, st.integers(1, 99), st.none() | st.just("exit code 1"))
GONE = st.builds(
    Gone,
    id=st.integers(1, 99),
    place=st.from_regex(r"filter scan-[0-9]{1,3}", fullmatch=True),
    command=st.just("ccat trigger maps --step filter --force"),
    last_run_id=st.integers(1, 99),
    active_run_id=st.none() | st.integers(1, 99),
    tried=st.none() | TRIED,
    is_released=st.booleans(),
    is_repeatable=st.booleans(),
)


@given(gone=GONE)
def test_a_run_is_created_where_none_is_active_and_nothing_speaks_against_it(gone: Gone) -> None:
    may_be = gone.is_released and gone.is_repeatable and gone.tried is None
    assert (remake(gone) is Remake.CREATE) == (gone.active_run_id is None and may_be)
    assert (remake(gone) is Remake.UNDER_WAY) == (gone.active_run_id is not None)


@given(gone=st.lists(GONE, min_size=1, max_size=6))
def test_who_waits_names_first_what_nobody_makes_and_what_helps(gone: Sequence[Gone]) -> None:
    told = waits(gone)
    stuck = [one for one in gone if remake(one) not in {Remake.CREATE, Remake.UNDER_WAY}]
    first = min(stuck or gone, key=lambda one: one.place)
    assert told.startswith(f"waits for products to be made again: {first.place}")
    assert ("; " in told) == bool(stuck)
    assert (f"and {len(gone) - 3} more" in told) == (len(gone) > 3)


def test_it_says_how_to_go_on() -> None:
    usual = Gone(
        id=1,
        place="filter scan-1",
        command="ccat trigger maps --step filter --sub-group scan-1 --force",
        last_run_id=1,
        active_run_id=None,
        tried=None,
        is_released=True,
        is_repeatable=True,
    )

    def told(**values: object) -> str:
        return waits([Gone(**{**vars(usual), **values})]).removeprefix("waits for products to be made again: ")

    assert told() == "filter scan-1"
    assert told(active_run_id=7) == "filter scan-1 (run 7)"
    again = "`ccat run retry 7` tries it again"
    assert (
        told(tried=Tried(7, "exit code 1")) == f"filter scan-1; filter scan-1: run 7 failed (exit code 1), and {again}"
    )
    anew = f"`{usual.command}` makes"
    assert told(tried=Tried(7, None)) == f"filter scan-1; filter scan-1: run 7 was cancelled, and {anew} a new one"
    assert told(is_released=False) == "filter scan-1; filter scan-1: no version of its software is released"
    gone = "what it was made of is gone"
    assert told(is_repeatable=False) == f"filter scan-1; filter scan-1: {gone}, and {anew} it of what there is"
