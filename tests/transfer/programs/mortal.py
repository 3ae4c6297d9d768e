"""Does transfers on request, each in a process of its own that signals itself before a chosen step.

A request is a line of JSON: {"operation", "id", "step", "signal", "lease_s"} starts one, {"continue": pid} goes on with
one that is stopped. The answer says what became of it: {"pid", "ended": "killed" | "stopped" | "done" | "failed"}.
Processes that are forked are ready at once, where one that starts Python takes a second; the transfer of step 0 is done
by this process itself, so that its children have all statements compiled.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from botocore.httpsession import URLLib3Session

from ccat_data_transfer.backends.streams import Sink
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import VERBS
from ccat_data_transfer.verbs.attempts import Worker
from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_ops_db.session import create_engine
from ccat_service.logging import configure_logging


class Steps:
    """Counts what a transfer does outside, requests to object stores too, and its commits; of the chunks of a file only
    the first."""

    def __init__(self, last: int, number: int) -> None:
        self._left = last
        self._signal = number

    def take(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._signal)

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*args: Any, **options: Any) -> Any:
            self.take()
            return function(*args, **options)

        return stepping

    def before_first(self, write: Callable[[Sink, bytes], int]) -> Callable[[Sink, bytes], int]:
        def stepping(sink: Sink, data: bytes) -> int:
            if sink.tell() == 0:
                self.take()
            return write(sink, data)

        return stepping


def work(engine: sa.Engine, request: dict[str, Any]) -> None:
    lease = timedelta(seconds=request["lease_s"])
    worker = Worker(engine=engine, name="mortal worker", lease=lease, part_bytes=600_000)
    if request["operation"] == Operation.DELETION:
        delete_copies(worker, [request["id"]])
    else:
        VERBS[Operation(request["operation"])](worker, request["id"])


def work_until_step(engine: sa.Engine, request: dict[str, Any]) -> None:
    steps = Steps(request["step"], request["signal"])
    engine.dispose(close=False)  # its connections are those of the parent
    if request["signal"] == signal.SIGKILL:  # one that is only stopped would hold its locks
        sa.event.listen(engine, "commit", lambda _: steps.take())
    for name in ("fsync", "mkdir", "replace", "rename", "unlink", "rmdir"):
        setattr(os, name, steps.before(getattr(os, name)))
    URLLib3Session.send = steps.before(URLLib3Session.send)  # type: ignore[method-assign]  # as the next one
    Sink.write = steps.before_first(Sink.write)  # type: ignore[method-assign]  # this process does nothing else
    work(engine, request)


def start(engine: sa.Engine, request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work_until_step(engine, request)
        except BaseException:  # noqa: BLE001 - a forked process must end here, whatever happens
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def answer(engine: sa.Engine, request: dict[str, Any], stopped: set[int]) -> dict[str, Any]:
    if request.get("step") == 0:
        work(engine, request)
        return {"ended": "done"}
    if "continue" in request:
        pid = request["continue"]
        os.kill(pid, signal.SIGCONT)
    else:
        pid = start(engine, request)
    _, status = os.waitpid(pid, os.WUNTRACED)
    (stopped.add if os.WIFSTOPPED(status) else stopped.discard)(pid)
    return {"pid": pid, "ended": ended(status)}


def main(url: str) -> None:
    configure_logging(level="ERROR")
    engine = create_engine(url, application_name="mortal")
    stopped: set[int] = set()
    for line in sys.stdin:
        print(json.dumps(answer(engine, json.loads(line), stopped)), flush=True)  # noqa: T201 - how it answers
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)


def ended(status: int) -> str:
    if os.WIFSTOPPED(status):
        return "stopped"
    if os.WIFSIGNALED(status):
        return "killed"
    return "failed" if status else "done"


if __name__ == "__main__":
    main(sys.argv[1])
