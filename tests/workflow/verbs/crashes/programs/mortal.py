"""Lives the life of the newest run on request, in a process of its own that dies at a chosen point.

A request is a line of JSON: {"life", "points", "first"}, of which the first point that it reaches kills it; the answer
says which that was, and where in a round: there the next one begins. Without points this process itself lives it, and
answers with those that it came by. So its children, which are forked, have everything imported and every statement
compiled. {"look", "points"} is the same for what processes do beside the runs.
"""

import json
import os
import signal
import sys
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis

from ccat.crashing import arm, places
from ccat_service.database import DatabaseConnection
from ccat_service.logging import configure_logging
from ccat_workflow_manager.verbs.workplace import Workplace
from tests.workflow.verbs.crashes.lives import LIVES, Scene, live
from tests.workflow.verbs.crashes.looks import LOOKS
from tests.workflow.verbs.works import backend, location_id


class Fate:
    """Which points were reached, and where the process dies."""

    def __init__(self) -> None:
        self.points: frozenset[str] = frozenset()
        self.reached: dict[str, None] = {}
        self.part = 0
        self.last_words, self._mouth = os.pipe()

    def note(self, part: int) -> None:
        self.part = part

    def meet(self, point: str) -> None:
        self.reached[point] = None
        if point in self.points:
            os.write(self._mouth, f"{self.part} {point}".encode())
            os.kill(os.getpid(), signal.SIGKILL)


def answer(scene: Scene, fate: Fate, request: dict[str, Any]) -> dict[str, Any]:
    scene = replace(scene, post=type(scene.post)())
    work = partial(LOOKS[request["look"]], scene) if "look" in request else partial(_live, scene, fate, request)
    if "points" not in request:
        fate.reached.clear()
        work()
        return {"reached": list(fate.reached)}
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            fate.points = frozenset(request["points"])
            scene.engine.dispose(close=False)  # its connections are those of the parent
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - a forked process must end here, whatever happens
            traceback.print_exc()
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        return {"died": None, "part": 0}
    part, _, point = os.read(fate.last_words, 1000).decode().partition(" ")
    return {"died": point, "part": int(part)}


def _live(scene: Scene, fate: Fate, request: dict[str, Any]) -> None:
    live(scene, LIVES[request["life"]], request.get("first", 0), fate.note)


def main(database_url: str, redis_url: str, root: str) -> None:
    configure_logging(level="ERROR")
    fate = Fate()
    arm({place.module for place in places()}, fate.meet)
    database, redis = DatabaseConnection(database_url, "mortal"), Redis.from_url(redis_url)
    here, base = location_id(database.engine), Path(root) / "cologne/ramses/pipelines"
    workplace = Workplace(database, {here: backend(redis, base)}, {here: base}, "mortal")
    scene = Scene(Path(root), database=database, workplace=workplace, location_id=here, redis=redis)
    for line in sys.stdin:
        print(json.dumps(answer(scene, fate, json.loads(line))), flush=True)  # noqa: T201 - how it answers


if __name__ == "__main__":
    main(*sys.argv[1:])
