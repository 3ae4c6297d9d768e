"""Where the story is played: raw scans, software, definitions, and a stack that runs for as long as it is needed."""

import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from ccat.demo.commands import Ccat
from ccat.demo.directory import DemoDirectory, clear
from ccat.demo.instruments import INSTRUMENTS, Instrument
from ccat.demo.options import Options
from ccat.demo.software import installed_digest, release
from ccat.demo.story import FAULTS, FIRST_VERSION, NEXT_VERSION, Fault
from ccat.demo.telescope import Scan, another_of, names_of, observe
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
    scans: Mapping[str, Scan]
    """By the name that the story calls each."""
    environments: Mapping[str, Path]
    """Version of the reduction software → where it is installed."""

    @property
    def names(self) -> Mapping[str, str]:
        """What the story calls the sub-groups."""
        return names_of([*self.scans.values(), *map(another_of, self.scans.values())])

    @property
    def truth_files(self) -> Mapping[str, Path]:
        """What the scans were made of, by the config that has to know it."""
        return {one.instrument.check_config: one.file.with_name("truth.json") for one in self.scans.values()}


def set_stage(options: Options, directory: DemoDirectory, teller: Teller) -> Stage:
    """Everything in place that needs no stack; nothing is left of the last demo but its cache."""
    environment = options.environment.absolute()
    digest = installed_digest(environment)
    cache = (options.cache or directory.cache).absolute()
    ccat = Ccat(directory.stack.root)
    with teller.beat("removing what the last demo left"):
        _take_down(ccat, directory)
        clear(directory)
    with teller.beat("simulating the scans of both instruments"):
        scans = _observe_all(environment, cache, digest=digest, seed=options.seed)
    teller.say(f"{len(scans)} raw scans of two instruments, with known truth, lie in {cache}")
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


def _observe_all(environment: Path, cache: Path, *, digest: str, seed: int) -> Mapping[str, Scan]:
    """Scans of all instruments, which are simulated side by side."""

    def of(instrument: Instrument) -> Mapping[str, Scan]:
        directory = cache / f"raw-{instrument.program}-{digest}-seed-{seed}"
        return observe(instrument, directory, environment=environment, seed=seed)

    with ThreadPoolExecutor() as side_by_side:
        return {name: scan for scans in side_by_side.map(of, INSTRUMENTS) for name, scan in scans.items()}


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
            see = f"`CCAT_DATA_DIR={place.root} ccat packages`, `… ccat runs`"
            stage.teller.say(f"The stack stays up: see {see}; `… ccat down` ends it")
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
