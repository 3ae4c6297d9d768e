"""Where new packages go: the preferred location of a site, and the archive site whose turn it is."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True)
class Destination:
    """A location that packages may be sent to now."""

    location_id: int
    site_id: int
    priority: int
    newest: int = 0
    """Number of the last transfer to it; 0 where there was none."""
    is_shut: bool = False
    """Whether what is to go there would wait now: it is away, or nothing can be put there."""


def preferred(places: Iterable[Destination]) -> Destination | None:
    """The one with the highest priority, of several such the oldest; one that is shut only where all are."""
    return max(places, key=lambda one: (not one.is_shut, one.priority, -one.location_id), default=None)


class Turns:
    """Deals packages out one by one, so that every site gets as many as the others that can be got to."""

    def __init__(self, archives: Collection[Destination]) -> None:
        self._last: dict[int, int] = {}
        for one in archives:
            self._last[one.site_id] = max(one.newest, self._last.get(one.site_id, 0))
        self._numbers = count(1 + max(self._last.values(), default=0))

    def take(self, reached: Collection[Destination]) -> Destination | None:
        """The preferred archive of the site that has waited for longest, of some that can be got to.

        A site whose archives are all shut gets nothing while another has one that is not.
        """
        at_hand = [one for one in reached if not one.is_shut] or reached
        site_id = min((one.site_id for one in at_hand), key=lambda site: (self._last[site], site), default=None)
        if site_id is not None:
            self._last[site_id] = next(self._numbers)
        return preferred(one for one in reached if one.site_id == site_id)
