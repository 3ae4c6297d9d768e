"""What a draw tells of all: where it can be reckoned by hand, and how often it is right."""

import random
from collections import Counter

import pytest

from ccat_ops_db.grouping.estimating import Sample


def test_a_draw_of_all_is_exact() -> None:
    sample = Sample(drawn=100, among=100, packages=40, sub_groups=7, single=3)
    assert (sample.estimated_packages(), sample.margin(), sample.estimated_sub_groups()) == (40, 0, 7)
    assert sample.estimated_sub_groups([(10, 10), (2, 2)]) >= 7


def test_an_empty_database_has_nothing() -> None:
    sample = Sample(drawn=0, among=0, packages=0, sub_groups=0, single=0)
    assert (sample.estimated_packages(), sample.margin(), sample.estimated_sub_groups()) == (0, 0, 0)


@pytest.mark.parametrize("met", [0, 1000])
def test_where_none_or_all_were_met_there_may_be_some_others(met: int) -> None:
    sample = Sample(drawn=1000, among=100_000, packages=met, sub_groups=min(met, 1), single=0)
    assert sample.estimated_packages() == met * 100
    assert sample.margin() == 297


def draw(sizes: list[int], drawn: int) -> tuple[Sample, Counter[int]]:
    """A draw from the packages of sub-groups of these sizes."""
    packages = [number for number, size in enumerate(sizes) for _ in range(size)]
    met = Counter(random.Random(len(sizes)).sample(packages, drawn))  # noqa: S311 - made anew alike
    single = sum(number == 1 for number in met.values())
    return Sample(drawn, len(packages), packages=drawn, sub_groups=len(met), single=single), met


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_the_number_of_packages_lies_within_the_margin_in_nine_of_ten_draws_at_least(share: float) -> None:
    chance, among, drawn = random.Random(18), 100_000, 5000  # noqa: S311 - made anew alike
    selected, right = round(among * share), 0
    for _ in range(200):
        met = sum(number < selected for number in chance.sample(range(among), drawn))
        sample = Sample(drawn, among, packages=met, sub_groups=1, single=0)
        right += abs(sample.estimated_packages() - selected) <= sample.margin() < 0.4 * selected
    assert right >= 180


@pytest.mark.parametrize(
    ("sizes", "within"),
    [([50_000, 50_000], 0.0), ([1000] * 100, 0.0), ([100] * 1000, 0.02), ([10] * 10_000, 0.1)],
    ids=["two", "hundred", "thousand", "ten-thousand"],
)
def test_sub_groups_of_like_sizes_are_counted_well(sizes: list[int], within: float) -> None:
    sample, _ = draw(sizes, 5000)
    assert abs(sample.estimated_sub_groups() - len(sizes)) <= within * len(sizes)


def test_sub_groups_of_unlike_sizes_are_counted_well_where_the_sizes_of_some_are_known() -> None:
    sizes = [1, 2, 4, 8, 16] * 4000
    sample, met = draw(sizes, 2000)
    known = [(number, sizes[one]) for one, number in list(met.items())[:200]]
    assert abs(sample.estimated_sub_groups(known) - len(sizes)) < 0.25 * len(sizes)
    assert abs(sample.estimated_sub_groups() - len(sizes)) > 0.25 * len(sizes)
