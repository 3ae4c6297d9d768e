"""Where the story is played: raw scans, software, definitions, and a stack that runs for as long as it is needed."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from ccat.demo.commands import Ccat
from ccat.demo.directory import DemoDirectory, clear
from ccat.demo.options import Options
from ccat.demo.software import installed_digest, release
from ccat.demo.story import FAULTS, FIRST_VERSION, NEXT_VERSION, Fault
from ccat.demo.telescope import DISK, Scan, another_of, names_of, observe
from ccat.demo.telling import Teller

BEATS: Final = 6
"""Of the teller, outside of the acts."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the acts need."""

    directory: DemoDirectory
    ccat: Ccat
    teller: Teller
    fault: Fault
    scans: Mapping[int, Scan]
    environments: Mapping[str, Path]
    """Version of the reduction software → where it is installed."""

    @property
    def names(self) -> Mapping[str, str]:
        """What the story calls the sub-groups."""
        return names_of([*self.scans.values(), *map(another_of, self.scans.values())])

    @property
    def truth_file(self) -> Path:
        """What the scans were made of."""
        return self.scans[1].file.with_name("truth.json")

    @property
    def disk(self) -> Path:
        """The instrument's disk."""
        return self.directory.disk_of(DISK)


def set_stage(options: Options, directory: DemoDirectory, teller: Teller) -> Stage:
    """Everything in place that needs no stack; nothing is left of the last demo but its cache."""
    environment = options.environment.absolute()
    digest = installed_digest(environment)
    cache = (options.cache or directory.cache).absolute()
    ccat = Ccat(directory.stack.root)
    with teller.beat("removing what the last demo left"):
        _take_down(ccat, directory)
        clear(directory)
    with teller.beat("simulating four scans"):
        scans = observe(environment, cache / f"raw-{digest}-seed-{options.seed}", seed=options.seed)
    teller.say(f"Four raw scans with known truth lie in {scans[1].file.parent}")
    if options.fault:
        teller.say(f"With a fault, {options.fault}: {FAULTS[options.fault].tale}")
    with teller.beat(f"installing version {NEXT_VERSION} of the reduction software, for later"):
        later = release(NEXT_VERSION, cache / f"pipelines-{NEXT_VERSION}-{digest}")
    return Stage(
        directory=directory,
        ccat=ccat,
        teller=teller,
        fault=FAULTS[options.fault],
        scans=scans,
        environments={FIRST_VERSION: environment, NEXT_VERSION: later},
    )


@contextmanager
def running_stack(stage: Stage, *, keep: bool) -> Iterator[timedelta]:
    """A stack inside the `with` block, which gets to know how long its start took.

    It is down afterwards, unless it is to be kept and nobody interrupted.
    """
    place = stage.directory.stack
    try:
        with stage.teller.beat("starting the stack"):
            started = time.monotonic()
            stage.ccat.show("up", "--detach")
            took = timedelta(seconds=time.monotonic() - started)
        stage.teller.say(f"PostgreSQL, Redis, managers and workers run after {took.total_seconds():.0f} s")
        yield took
    except KeyboardInterrupt:
        keep = False
        raise
    finally:
        if keep and place.state.exists():
            stage.teller.say(f"The stack stays up: see `CCAT_DATA_DIR={place.root} ccat runs`; `ccat down` ends it")
        else:
            with stage.teller.beat("stopping the stack"):
                _take_down(stage.ccat, stage.directory)


def _take_down(ccat: Ccat, directory: DemoDirectory) -> None:
    """Stop what runs in the directory, also what a killed demo left; a second Ctrl-C does not interrupt this."""
    if not directory.stack.state.exists():
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ccat.show("down")
    finally:
        signal.signal(signal.SIGINT, before)
