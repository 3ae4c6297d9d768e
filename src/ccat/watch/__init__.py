"""Look what is the matter, and tell people: one process at a time does it, whichever is there."""
