"""Start a stack of small processes instead of our own: `small_stack.py DIRECTORY [--detach]`."""

import os
import signal
import sys
from pathlib import Path

from ccat.stack.directory import open_directory
from ccat.stack.errors import StackError
from ccat.stack.program import Program
from ccat.stack.services import ServiceSpec
from ccat.stack.up import start_stack

SHOW_SETTINGS = 'cat "$CCAT_CONFIG"'
CRASH_WHEN_TOLD = 'test -e "$CCAT_STACK/crash" && exit 3; exec sleep 1000'
WITH_A_JOB_AND_A_HELPER = "setsid --fork sleep 1001; sleep 1002 & exec sleep 1000"


def shell(name: str, script: str) -> ServiceSpec:
    return ServiceSpec(name=name, command=["sh", "-c", script])


PROGRAM = Program(
    preparations=[
        shell("show-settings", SHOW_SETTINGS),
        shell("last-preparation", os.environ.get("LAST_PREPARATION", "true")),
    ],
    services=lambda _redis: [
        shell("steady", "exec sleep 1000"),
        shell("moody", CRASH_WHEN_TOLD),
        shell("parent", WITH_A_JOB_AND_A_HELPER),
    ],
    processing_locations=lambda _database_url: [7, 9],
)


# As a terminal starts it, or nohup, however the tests were started.
signal.signal(signal.SIGHUP, signal.SIG_IGN if "UNDER_NOHUP" in os.environ else signal.SIG_DFL)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


try:
    is_up = start_stack(open_directory(Path(sys.argv[1])), PROGRAM, detach="--detach" in sys.argv, say=say)
except StackError as error:
    sys.exit(str(error))
sys.exit(0 if is_up else 1)
