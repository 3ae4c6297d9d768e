"""Says commands on request, each in a forked process of its own: `ccat`, where everything is imported already.

A request is a line of JSON: {"words", "environment", "directory"}; the answer has the exit code, negative for a signal,
and what was said.
"""

import json
import os
import signal
import sys
import tempfile
import traceback
from typing import IO, Any

import ccat.processes  # noqa: F401 - for those that are processes
from ccat.cli import main as ccat_main
from ccat.crashing import places


def answer(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as said:
        pid = os.fork()
        if pid == 0:
            _say(request, said)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        return {"code": code, "said": said.read()}


def _say(request: dict[str, Any], said: IO[str]) -> None:
    """Be the child."""
    code = 1
    signal.alarm(60)  # whoever lives on although it was to die ends by this
    try:
        for number in (1, 2):
            os.dup2(said.fileno(), number)
        os.chdir(request["directory"])
        os.environ |= request["environment"]
        sys.argv = ["ccat", *request["words"]]
        ccat_main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a forked process must end here, whatever happens
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    places()  # they are looked for once, before anybody is told where to die
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)  # noqa: T201 - how it answers


if __name__ == "__main__":
    main()
