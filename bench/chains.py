"""Chains of steps, each a line of shell, over packages that are staged."""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from bench.system import System
from ccat_ops_db import models
from ccat_ops_db.definitions.parsing import parse_definitions
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import presets
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.definitions import apply_definitions

COMMAND: Final = ["/bin/sh", "-c", 'echo x > "$WORKFLOW_OUTPUT_DIR/file"']
STEPS: Final = ("calibrate", "check", "grid")


def define(one: System, *, steps: int = len(STEPS), group_by: Sequence[str] = ("RawDataPackage.id",)) -> int:
    """A pipeline of so many steps, one after the other, each a line of shell for each sub-group; its id."""
    _install(one.root / "software")
    version = {"version": "1.0", "series": "1", "command": COMMAND, "environment": "software", "distribution": "line"}
    chain = [
        {
            "key": key,
            "software": "line",
            "group_by": list(group_by),
            **({"depends_on": [above]} if above else {}),
        }
        for key, above in zip(STEPS[:steps], ("", *STEPS), strict=False)
    ]
    document = {
        "software": [{"name": "line", "versions": [version]}],
        "groupings": [{"name": "all", "rules": []}],
        "pipelines": [{"name": "lines", "grouping": "all", "location": "cologne/ramses", "steps": chain}],
    }
    definitions = parse_definitions(document, catalogue=catalogue(), dimensions=list(dimensions()), presets=presets())
    with transaction(one.engine) as session:
        apply_definitions(session, definitions, folder=one.root, by="bench")
    with transaction(one.engine) as session:
        hand_out(session)
        return session.scalars(sa.select(models.Pipeline.id)).one()


def _install(environment: Path) -> None:
    """Lay a distribution out as an installer would, with its RECORD."""
    packages = environment / "lib/python3.11/site-packages"
    files = {"line.py": b"", "line-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: line\nVersion: 1.0\n"}
    for name, content in files.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_bytes(content)
    rows = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    (packages / "line-1.0.dist-info/RECORD").write_text("\n".join([*rows, "line-1.0.dist-info/RECORD,,"]) + "\n")


def _digest(content: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
