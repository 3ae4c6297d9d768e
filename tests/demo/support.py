"""A demo as people start it, and what tests ask about it."""

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[2]
PIPELINES_ENV = REPOSITORY / os.environ.get("CCAT_PIPELINES_ENV", "build/pipelines-env")
MARK = "OF_WHICH_DEMO"


@dataclass(frozen=True)
class Ended:
    """What a demo printed, and with what it ended."""

    exit_code: int
    output: str
    errors: str


@dataclass(frozen=True)
class Demo:
    """A demo in a directory of its own; every process that descends from it carries its mark."""

    directory: Path
    cache: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, *options: str) -> subprocess.Popen[str]:
        places = {"--data-dir": self.directory, "--cache": self.cache, "--pipelines-env": PIPELINES_ENV}
        return subprocess.Popen(
            [sys.executable, "-m", "ccat", "demo", *(f"{name}={place}" for name, place in places.items()), *options],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def play(self, *options: str, on_line: Callable[[str], None] = lambda _line: None) -> Ended:
        """Play to the end; `on_line` gets to know what is told."""
        lines = []
        with self.start(*options) as process:
            for line in process.stdout or ():
                lines.append(line)
                on_line(line)
            errors = process.stderr.read() if process.stderr else ""
        return Ended(process.returncode, "".join(lines), errors)

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, MARK: self.mark}

    @property
    def stack(self) -> Path:
        return self.directory / "stack"

    def ccat(self, *words: str) -> str:
        """What a command prints about the stack of this demo."""
        command = [sys.executable, "-m", "ccat", *words]
        environment = {**self.environment, "CCAT_DATA_DIR": str(self.stack)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.directory / "report.json").read_text())
        return report

    def raw_files(self) -> Mapping[str, str]:
        """Name → checksum of every raw file of both instruments."""
        described = [json.loads(one.read_text())["scans"] for one in self.cache.glob("raw-*/scans.json")]
        return {scan["file"]: scan["checksum"] for scans in described for scan in scans}

    def processes(self) -> list[psutil.Process]:
        """What is alive of it: with its mark, or working in its directory as servers and jobs do."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def process_names(self) -> list[str]:
        """How they are called."""
        names = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                names.append(process.name())
        return names

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get(MARK) == self.mark or self.directory in Path(process.cwd()).parents
        except (psutil.Error, OSError):
            return False
