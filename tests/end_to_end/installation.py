"""A whole installation in a directory, used as people use it: through the command line."""

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from ccat.cli import app

REPOSITORY = Path(__file__).parents[2]
SOURCE = "ccat/chai_raw_data"


class CommandFailed(AssertionError):
    """A command that was to succeed did not."""


@dataclass(frozen=True)
class Installation:
    """An embedded stack with everything in `directory`."""

    directory: Path

    @property
    def instrument_disk(self) -> Path:
        """Where the instrument writes its raw files."""
        return self.directory / "storage" / SOURCE

    @property
    def settings(self) -> dict[str, Any]:
        """What its processes read."""
        return tomllib.loads((self.directory / "ccat.toml").read_text())

    def process(self, *words: object) -> subprocess.CompletedProcess[str]:
        """`ccat WORDS…` as a process of its own, whatever comes of it."""
        command = [sys.executable, "-m", "ccat", *map(str, words)]
        environment = {**os.environ, "CCAT_DATA_DIR": str(self.directory)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=150)

    def run(self, *words: object, **environment: str) -> Result:
        """`ccat WORDS…` in this process, which saves a second each time, whatever comes of it."""
        found = {"CCAT_DATA_DIR": str(self.directory), "CCAT_CONFIG": str(self.directory / "ccat.toml")}
        return CliRunner().invoke(app, [str(word) for word in words], env=found | environment)

    def ccat(self, *words: object) -> str:
        """What `ccat WORDS…` prints; it must succeed."""
        done = self.run(*words)
        if done.exit_code:
            raise CommandFailed(f"ccat {words} ended with {done.exit_code}:\n{done.output}") from done.exception
        return done.stdout

    def insist(self, *words: object) -> None:
        """`ccat WORDS…` again and again until it succeeds, as an instrument does while the database is away."""
        deadline = time.monotonic() + 30
        while (done := self.run(*words)).exit_code:
            assert time.monotonic() < deadline, f"ccat {words} still ends with {done.exit_code}:\n{done.output}"
            time.sleep(0.2)

    def json(self, *words: object) -> Any:
        """What `ccat WORDS… --json` says; it must succeed."""
        return json.loads(self.ccat(*words, "--json"))

    def observe(self, observation: str, files: Sequence[Path], *, started_at: str, ended_at: str) -> uuid.UUID:
        """Play one scan: the files are written to the instrument's disk and registered."""
        scan, written = uuid.uuid4(), []
        for file in files:
            written.append(self.instrument_disk / str(scan) / file.name)
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, written[-1])
        self.insist("scan", "start", observation, "--id", scan, "--started-at", started_at)
        self.insist("scan", "add", scan, *written, "--module", "CHAI/LFA", "--location", SOURCE)
        self.insist("scan", "end", scan, "--ended-at", ended_at, "--files", len(files))
        return scan

    def path_of(self, product: dict[str, Any]) -> Path:
        """File of a product, as `ccat products --json` describes it."""
        run = self.json("run", "show", product["run"])
        attempt = Path(str(run["attempts"][-1]["directory"]))
        base = self.directory / "storage/cologne/ramses/pipelines"
        return base / attempt.parent / "products" / str(product["path"])
