"""Run a supervisor in the background and follow it until it is up."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NoReturn, TextIO

from ccat.stack.directory import StackDirectory
from ccat.stack.state import read_state
from ccat_ops_db.errors import CcatError

Say = Callable[[str], None]
_POLL = timedelta(milliseconds=50)


def run_detached(directory: StackDirectory, run: Callable[[Say], None], say: Say) -> bool:
    """Run the supervisor `run` in a session of its own; return when it is up (True) or has given up (False).

    What it prints goes to its log, and from there to `say` until then. An interrupt meanwhile stops it.
    """
    log = directory.log_of("supervisor")
    with log.open("a") as output, log.open() as news:
        news.seek(0, os.SEEK_END)
        child = os.fork()
        if child == 0:
            _become_supervisor(run, output)
        try:
            return _follow(child, directory, lambda: _relay(news, say))
        except KeyboardInterrupt:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            raise


def _become_supervisor(run: Callable[[Say], None], output: TextIO) -> NoReturn:
    os.setsid()
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    exit_code = 1
    try:
        run(_log)
        exit_code = 0
    except CcatError as error:
        _log(str(error))
    except Exception:  # noqa: BLE001 above this frame there is nobody who would print it
        traceback.print_exc()
    finally:
        os._exit(exit_code)  # not the caller's clean-up a second time


def _log(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _follow(child: int, directory: StackDirectory, relay: Callable[[], None]) -> bool:
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        state = read_state(directory.state)
        relay()
        if state and state.phase == "up":
            return True
        time.sleep(_POLL.total_seconds())
    relay()
    return False


def _relay(news: TextIO, say: Say) -> None:
    for line in news:
        say(line.rstrip("\n"))
