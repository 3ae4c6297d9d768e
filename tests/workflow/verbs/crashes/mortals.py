"""Processes that do what they are asked to, and die of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from ccat.stack.redis import RedisAddress
from tests.workflow.verbs.works import Works

REPOSITORY = Path(__file__).parents[4]
LOOKED: Final = ("ccat.watch.", "ccat_service.health.", "ccat_service.spaces.")
"""Where the points begin that test_looks.py is about."""
OF_CLUSTERS: Final = (
    *("ccat_workflow_manager.hpc.cluster.", "ccat_workflow_manager.hpc.slurm."),
    *("ccat_workflow_manager.hpc.documents.put:", "ccat_workflow_manager.hpc.documents.draft:fsync:"),
)
"""Where those of tests/workflow/hpc/test_slurm.py begin."""
OF_IMAGES: Final = ("ccat_workflow_manager.hpc.images.",)
"""Where those of tests/workflow/hpc/test_pulled_images.py begin."""
SAID: Final = ("ccat.processes.", "ccat.wiring.")
"""Where those of test_commands.py begin; all others are test_crash_points.py's."""
_PROGRAMS: Final = Path(__file__).parent / "programs"


class Forker:
    """A process that forks others on request, one at a time; it is asked, and answers, in lines of JSON."""

    def __init__(self, program: str, *arguments: str | Path, log: Path) -> None:
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, _PROGRAMS / program, *arguments],
                cwd=REPOSITORY,
                env={"PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}", "PATH": "/usr/bin:/bin"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.log = log

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self.log.read_text()
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """End it; whatever died of something else than it was to die of is a failure."""
        try:
            self._process.communicate(timeout=10)
        finally:
            self._process.kill()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()


class Mortals(Forker):
    """Processes that live lives of runs, or look after the installation."""

    def __init__(self, works: Works, redis: RedisAddress, log: Path) -> None:
        url = works.engine.url.render_as_string(hide_password=False)
        super().__init__("mortal.py", url, redis.url, works.root, log=log)
        self.ways: dict[str, list[str]] = {}
        """What comes by each point."""

    def come_by(self, name: str, **request: Any) -> None:
        """Have the forking process itself do it, and note by which points that comes."""
        for point in self.ask(**request)["reached"]:
            self.ways.setdefault(point, []).append(name)

    def points_of(self, name: str) -> list[str]:
        """Where processes die of it, in its order; every point belongs to what comes by it first."""
        return [point for point, names in self.ways.items() if names[0] == name]
