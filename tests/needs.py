"""What not every machine has: a test without it is skipped; with CCAT_REQUIRE_ALL=1 it fails if it can be installed."""

import os
from typing import NoReturn

import pytest


def give_up(missing: str) -> NoReturn:
    """End the test because of what is missing here; the words say how to get it."""
    if os.environ.get("CCAT_REQUIRE_ALL") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


def do_without(right: str) -> NoReturn:
    """End the test because of a right that nothing which can be installed gives, such as to mount a file system."""
    pytest.skip(right)
