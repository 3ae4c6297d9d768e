import os
import subprocess
import sys
from pathlib import Path

from ccat.stack.redis import RedisAddress
from tests.workflow.verbs.works import Works


class ManagerProcess:
    """A real process, with its log."""

    def __init__(self, name: str, works: Works, redis: RedisAddress, *, log: Path, **more: str) -> None:
        self._log = log
        self._was_killed = False
        variables = {
            "CCAT_OPS_DB_URL": works.engine.url.render_as_string(hide_password=False),
            "CCAT_WORKFLOW_MANAGER_REDIS_HOST": redis.host,
            "CCAT_WORKFLOW_MANAGER_REDIS_PORT": str(redis.port),
            "CCAT_WORKFLOW_MANAGER_REDIS_PASSWORD": redis.password,
            "CCAT_WORKFLOW_MANAGER_PIPELINE_BASE_DIR": str(works.base),
            "CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID": str(works.location_id),
        }
        variables |= more
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("CCAT_")}
        command = [sys.executable, "-m", "ccat", name]
        with log.open("w") as output:
            self._process = subprocess.Popen(
                command, env=inherited | variables, stdout=output, stderr=output, cwd=log.parent
            )

    def has_started(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return "manager started" in self._log.read_text()

    def end(self) -> int:
        """Exit code once it has ended by itself, negative for a signal."""
        self._was_killed = True
        return self._process.wait(60)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._was_killed = True

    def stop(self) -> None:
        """See that it lives and could do all that was to be done, and stop it; nothing if it was killed."""
        if self._was_killed:
            return
        assert self._process.poll() is None, self._log.read_text()
        self._process.terminate()
        assert self._process.wait(10) == 0, self._log.read_text()
        assert "cannot be evaluated" not in self._log.read_text(), self._log.read_text()
