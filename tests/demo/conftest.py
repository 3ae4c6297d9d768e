import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo.support import PIPELINES_ENV, Demo
from tests.needs import give_up


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw scans and the next version of the software, made once for all demos."""
    if not (PIPELINES_ENV / "bin" / "chai").exists():
        give_up(f"the reductions are not installed in {PIPELINES_ENV}; `make set-up` does it")
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo-cache"


@pytest.fixture
def demo(cache: Path) -> Iterator[Demo]:
    """A demo that nothing may be left of."""
    with tempfile.TemporaryDirectory(prefix="ccat-demo-") as directory:
        demo = Demo(Path(directory).resolve() / "demo", cache)
        yield demo
        left = demo.processes()
        for process in left:
            process.kill()
        assert left == []
