"""Numbers of things as people write them: `1 copy`, `2,000 copies`."""


def counted(number: int, one: str, several: str) -> str:
    """So many of something, in the right form; the forms may bring their verb with them."""
    return f"{number:,} {one if number == 1 else several}"
