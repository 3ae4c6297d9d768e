import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.installation import Installation


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    """A whole installation that is up, for the tests of one module."""
    with tempfile.TemporaryDirectory(prefix="ccat-") as directory:
        found = Installation(Path(directory) / "data")
        up = found.process("up", "--detach")
        assert up.returncode == 0, up.stdout + up.stderr
        yield found
        found.process("down")
