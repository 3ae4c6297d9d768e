"""Workers that die or sleep in the middle of their work, as functions of this process."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Final

import pytest
import sqlalchemy as sa

from ccat_data_transfer.verbs import attempts, leases

OUTSIDE: Final = ("fsync", "mkdir", "rename", "replace", "chmod", "fchmod", "unlink", "rmdir")
"""What a worker does outside of the database; it may die before each, as before each commit."""


_LONGER_THAN_ANY_LEASE: Final = 3600.0


class Died(BaseException):
    """What a dead worker does: nothing, however many handlers there are."""


class Fate:
    """What is to become of the worker that works now."""

    def __init__(self) -> None:
        self.slept = 0.0
        """Seconds that workers have slept, as their clocks say."""
        self._left: int | None = None
        self._meanwhile: Callable[[], object] | None = None

    @contextmanager
    def of(self, step: int | None, meanwhile: Callable[[], object] | None = None) -> Iterator[None]:
        """A worker that dies before a step, or sleeps while others work."""
        self._left, self._meanwhile = step, meanwhile
        try:
            with suppress(Died):
                yield
        finally:
            self._left = self._meanwhile = None

    def meet(self, *, outside: bool = True) -> None:
        if self._left is None:
            return
        self._left -= 1
        if self._left <= 0 and self._meanwhile is None:
            raise Died
        if self._left <= 0 and self._meanwhile is not None and outside:  # a commit would hold its locks
            meanwhile, self._left, self._meanwhile = self._meanwhile, None, None
            meanwhile()
            self.slept += _LONGER_THAN_ANY_LEASE


@contextmanager
def armed(engine: sa.Engine) -> Iterator[Fate]:
    """Every step leads to this fate."""
    fate = Fate()

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*args: Any, **options: Any) -> Any:
            fate.meet()
            return function(*args, **options)

        return stepping

    def before_commit(_: sa.Connection) -> None:
        fate.meet(outside=False)

    with pytest.MonkeyPatch.context() as patched:
        for name in OUTSIDE:
            patched.setattr(os, name, before(getattr(os, name)))
        for module in (attempts, leases):
            patched.setattr(module, "monotonic", lambda: monotonic() + fate.slept)
        sa.event.listen(engine, "commit", before_commit)
        yield fate
        sa.event.remove(engine, "commit", before_commit)
