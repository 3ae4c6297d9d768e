"""How many packages and sub-groups there are, judged by some that were drawn at random. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_WHERE_NONE_WAS_MET: Final = 3
"""The rule of three: of what a draw of n never met there is, by 95 %, at most 3/n."""


@dataclass(frozen=True)
class Sample:
    """What a draw without replacement met."""

    drawn: int
    among: int
    """From so many, which need not all exist: those that do not are as much as those that do not match."""
    packages: int
    """So many of those drawn are selected."""
    sub_groups: int
    """So many sub-groups hold them."""
    single: int
    """So many of these sub-groups hold just one of them."""

    @property
    def scale(self) -> float:
        """So many packages stand behind each that was met."""
        return self.among / self.drawn if self.drawn else 1.0

    def estimated_packages(self) -> int:
        """How many packages are selected; off by more than the margin in one case of twenty."""
        return round(self.packages * self.scale)

    def margin(self) -> int:
        """Two standard errors of that; where none was met, or all were, as many as there may be of the others."""
        if self.packages in {0, self.drawn}:
            return math.ceil(_WHERE_NONE_WAS_MET * (self.scale - 1))
        missed = (1 - self.packages / self.drawn) * (1 - 1 / self.scale)
        return math.ceil(2 * self.scale * math.sqrt(self.packages * missed))

    def estimated_sub_groups(self, known: Sequence[tuple[int, int]] = ()) -> int:
        """How many sub-groups there are; never fewer than were met, never more than there are packages.

        `known` are, for some of those that were met, their packages in the draw and in all. Each package then stands
        for one over the size of its sub-group: right to some ten percent if these are like the others.

        Without them it is the estimator of Haas and Stokes (1998), which ANALYZE uses for columns: right to some
        percent where most sub-groups were met more than once, off by some factor where most were met once or never.
        """
        if self.packages == 0:
            return 0
        if known:
            share = sum(met / size for met, size in known) / sum(met for met, _ in known)
            return max(self.sub_groups, round(self.packages * self.scale * share))
        repeated = self.packages - self.single * (1 - 1 / self.scale)
        return round(self.packages * self.sub_groups / repeated)
