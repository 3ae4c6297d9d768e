"""How the loss of a whole location is told, apart from what was found bad."""

from typing import Final

DECLARED: Final = "lost with its location: "
"""Beginning of why a copy is MISSING that a person said to be lost with all that was there."""
