import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.figures import Figure
from bench.system import MANAGERS, WORKER, System, cpu_s, system
from ccat_ops_db.definitions.parsing import parse_definitions
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import presets
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.definitions import apply_definitions

_COMMAND: Final = ["/bin/sh", "-c", 'echo x > "$WORKFLOW_OUTPUT_DIR/file"']
_STEPS: Final = ("calibrate", "check", "grid")


def measure(
    *,
    size: Annotated[int, typer.Option(min=10, help="So many sub-groups of each step with the null backend.")] = 10_000,
    local: Annotated[int, typer.Option(min=0, help="So many sub-groups of each step with the local backend.")] = 1_000,
    only: str = "",
) -> Iterator[Figure]:
    """How many runs a second go through all their statuses."""
    if only != "local":
        with system(size) as null:
            define(null)
            rate = _rate(null, size, program="bench.null_worker")
            yield Figure("runs_per_s", rate[0])
            yield Figure("null_cpu_ms_per_run", rate[1])
    if only != "null":
        with system(local) as real:
            define(real)
            rate = _rate(real, local)
            yield Figure("local_steps_per_s", rate[0])
            yield Figure("cpu_ms_per_step", rate[1], at_most=12)


def _rate(one: System, size: int, *, program: str = "ccat") -> tuple[float, float]:
    runs = size * len(_STEPS)
    with one.running(*MANAGERS), one.running(WORKER, program=program):
        one.until_completed(1)
        start = cpu_s()
        took = one.until_completed(runs)
        used = cpu_s() - start
    return runs / took, used / runs * 1000


def define(one: System) -> None:
    """A pipeline of three steps, each a line of shell, for each package."""
    _install(one.root / "software")
    version = {"version": "1.0", "series": "1", "command": _COMMAND, "environment": "software", "distribution": "line"}
    steps = [
        {
            "key": key,
            "software": "line",
            "group_by": ["RawDataPackage.id"],
            **({"depends_on": [above]} if above else {}),
        }
        for key, above in zip(_STEPS, ("", *_STEPS), strict=False)
    ]
    document = {
        "software": [{"name": "line", "versions": [version]}],
        "groupings": [{"name": "all", "rules": []}],
        "pipelines": [{"name": "lines", "grouping": "all", "location": "cologne/ramses", "steps": steps}],
    }
    definitions = parse_definitions(document, catalogue=catalogue(), dimensions=list(dimensions()), presets=presets())
    with transaction(one.engine) as session:
        apply_definitions(session, definitions, folder=one.root, by="bench")


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
