"""The short form of `make chaos ARGS=--transfer`."""

import shutil
from datetime import timedelta
from pathlib import Path

from ccat_ops_db.states import Mover
from ccat_service.servers import RedisSettings
from tests.chaos.sites import KINDS
from tests.chaos.transfer import Plan, play
from tests.transfer.object_store import ObjectStore
from tests.transfer.support import Observatory

SHORT = Plan(
    seed=2,
    packages=10,
    kills=len(KINDS),
    every=timedelta(seconds=1),
    flips=4,
    flips_at=("cologne/buffer", "cologne/lta", "cologne/s3"),
    mover=Mover.RSYNC if shutil.which("rsync") else Mover.COPY,
    patience=timedelta(seconds=100),
)


def test_whatever_is_killed_and_whatever_rots_every_package_is_archived_whole(
    far: Observatory, redis_settings: RedisSettings, object_store: ObjectStore, tmp_path: Path
) -> None:
    said: list[str] = []
    outcome = play(SHORT, far, redis=redis_settings, store=object_store, logs=tmp_path, say=said.append)
    assert outcome.wrong == [], "\n".join([*said, *outcome.table()])
    assert outcome.kills == dict.fromkeys(KINDS, 1)
    assert outcome.flips == {"cologne/buffer": 2, "cologne/lta": 1, "cologne/s3": 1}
