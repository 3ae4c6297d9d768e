import pytest

from ccat_ops_db.plan.numbers import counted


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 copies are"), (1, "1 copy is"), (2, "2 copies are"), (12_345, "12,345 copies are")]
)
def test_so_many_of_something_are_told_with_the_verb_that_goes_with_them(number: int, told: str) -> None:
    assert counted(number, "copy is", "copies are") == told
