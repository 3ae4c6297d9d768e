from typing import Final

PART_BYTES: Final = 16 << 20
"""Size of a part, and what an upload keeps in memory, for objects up to 160 GB; larger ones have larger parts."""
_MOST_PARTS: Final = 10_000


def part_size(needs: int, *, least: int = PART_BYTES) -> int:
    """Size of the parts of an object that takes at most so many bytes."""
    return max(least, -(-needs // _MOST_PARTS))
