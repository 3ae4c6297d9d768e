from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.support import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that runs while the tests of a module last, in a directory with a name to stumble over."""
    running = Stack(tmp_path_factory.mktemp("shared").resolve() / 'a "data" directory \\ ñ 😀')
    supervisor = running.start_and_wait()
    yield running
    supervisor.terminate()
    supervisor.wait(60)
    assert running.processes() == []
    running.close()
    assert supervisor.returncode == 0


@pytest.fixture(scope="module")
def used_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that one test after the other uses, so that the cluster is made once."""
    return tmp_path_factory.mktemp("own").resolve() / "data"


@pytest.fixture
def own_stack(used_directory: Path) -> Iterator[Stack]:
    """A stack that this test alone starts and stops."""
    stack = Stack(used_directory)
    yield stack
    stack.close()
