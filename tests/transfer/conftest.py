from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.transfer.support import Observatory


@pytest.fixture
def observatory(engine: sa.Engine, tmp_path: Path) -> Observatory:
    """Database and storage of this test alone."""
    observatory = Observatory(engine, tmp_path / "storage")
    observatory.set_up()
    return observatory
