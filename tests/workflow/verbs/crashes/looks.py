"""What processes do beside the runs: look what is the matter and tell people, show that they live, see disks."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from ccat.watch import hook
from ccat.watch.hook import Hook
from ccat.watch.looking import Watch, look_and_tell, watching
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.session import transaction
from ccat_service.health import HealthCheck
from ccat_service.spaces import measure_space
from ccat_service.stop import Stop
from tests.workflow.verbs.crashes.lives import Scene
from tests.workflow.verbs.works import LOCATION_NAME, eventually

INSTANCE: Final = "mortal"
"""Of the service that shows signs of life."""


def heard(root: Path) -> Path:
    """What people have heard from the command: a message in each line."""
    return root / "heard"


def address(root: Path) -> Path:
    """Where people hear on the web."""
    return root / "address"


def _watch(scene: Scene, given: Hook) -> Watch:
    assert scene.redis is not None
    return Watch(
        database=scene.database,
        redis=scene.redis,
        hook=given,
        name=f"watch {os.getpid()}",
        backlog=timedelta(hours=12),
        pace=timedelta(),
    )


def _by_command(scene: Scene) -> Hook:
    return Hook(("/bin/sh", "-c", f"exec cat >>{heard(scene.root)}"))


def _tell(scene: Scene) -> None:
    look_and_tell(_watch(scene, _by_command(scene)))


def _tell_the_web(scene: Scene) -> None:
    look_and_tell(_watch(scene, Hook(webhook=address(scene.root).read_text())))


def _tell_nobody(scene: Scene) -> None:
    look_and_tell(_watch(scene, Hook(("/bin/false",))))


def _tell_who_hangs(scene: Scene) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hook, "_COMMAND_PATIENCE", timedelta(seconds=0.2))
        look_and_tell(_watch(scene, Hook(("/bin/sh", "-c", "while kill -0 $PPID; do sleep 0.05; done"))))


def _leave(scene: Scene) -> None:
    """Look, tell, and let another process do it from then on."""
    with watching(_watch(scene, _by_command(scene)), stop=(stop := Stop())):
        eventually(heard(scene.root).exists)
    eventually(lambda: all(one.name != "watch" for one in threading.enumerate()))
    stop.close()


def _live(scene: Scene) -> None:
    assert scene.redis is not None
    with HealthCheck("tests", "celery-worker", redis=scene.redis, instance=INSTANCE):
        pass


def _see(scene: Scene) -> None:
    root = scene.root / LOCATION_NAME
    base = root / "pipelines"
    base.mkdir(exist_ok=True)
    measure_space(scene.engine, scene.location_id, root, base=base)


def _see_archive(scene: Scene) -> None:
    """Its disk is away first."""
    with transaction(scene.engine) as session:
        number = find(session, LOCATION, "cologne/lta").id
    root = scene.root / "cologne/lta"
    with suppress(OSError):
        measure_space(scene.engine, number, root / "not mounted")
    root.mkdir(parents=True, exist_ok=True)
    measure_space(scene.engine, number, root)


TELL: Final = "tells by a command"
TELL_THE_WEB: Final = "tells by an address on the web"
LEAVE: Final = "leaves the watch to another one"
LIVE: Final = "shows signs of life"
SEE: Final = "sees what is free on a disk"
SEE_ARCHIVE: Final = "sees what is free on a disk where no runs are"

LOOKS: Final[dict[str, Callable[[Scene], None]]] = {
    TELL: _tell,
    TELL_THE_WEB: _tell_the_web,
    "tells by a command that fails": _tell_nobody,
    "tells by a command that hangs": _tell_who_hangs,
    LEAVE: _leave,
    LIVE: _live,
    SEE: _see,
    SEE_ARCHIVE: _see_archive,
}
