"""Performs the story on the real system, act by act, and stops at the first thing that is not as expected."""

import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import yaml
from rich.console import Console

from ccat.demo import definitions
from ccat.demo.checks import Run, Value, run_deviations, science_deviations, science_values, subject_of
from ccat.demo.directory import demo_directory
from ccat.demo.outcome import Outcome, look_back
from ccat.demo.report import show
from ccat.demo.software import EXAMPLE
from ccat.demo.stage import BEATS, Options, Stage, running_stack, set_stage
from ccat.demo.story import CHECK, FIRST_VERSION, NEXT_VERSION, RELEASED, STORY, Act
from ccat.demo.telescope import another_of, deliver
from ccat.demo.telling import Teller
from ccat_ops_db.errors import CcatError
from ccat_ops_db.states import RunStatus

_PATIENCE: Final = timedelta(minutes=4)
"""How long the work of one act may take."""
_COOLDOWN: Final = range(6, 61)
"""Seconds that maps may rest."""


class NotAsExpected(CcatError):
    """The system did something else than the story says."""

    code = "demo.not_as_expected"

    def __init__(self, title: str, deviations: Sequence[str]) -> None:
        super().__init__(f"{title} is not as expected. {'. '.join(deviations)}.")


def play(options: Options, console: Console) -> None:
    """Play the whole story; raises NotAsExpected at the first deviation."""
    teller = Teller(console, beats=BEATS + 3 * len(STORY))
    with _interruptible(), demo_directory(options.data_dir) as directory:
        teller.title("Preparations")
        stage = set_stage(options, directory, teller)
        with running_stack(stage, keep=options.keep) as took:
            _define(stage, cooldown=_cooldown(took))
            known: list[Run] = []
            for act in STORY:
                known += _perform(stage, act, known)
            outcome = _look_back(stage, known)
            show(outcome, console)
        ...


@contextmanager
def _interruptible() -> Iterator[None]:
    """Every request to stop becomes a KeyboardInterrupt, so that the stack is taken down."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    yield
