from pathlib import Path
from typing import Annotated

import typer

from ccat.cli.errors import reported
from ccat.cli.output import console
from ccat.demo.options import Options
from ccat.demo.story import FaultName

DataDir = Annotated[
    Path, typer.Option("--data-dir", help="Everything of the demo lies there; what the last one left is removed.")
]
Environment = Annotated[
    Path, typer.Option("--pipelines-env", envvar="CCAT_PIPELINES_ENV", help="Where the reductions are installed.")
]
Cache = Annotated[
    Path | None, typer.Option(help="Where raw scans and the next version are kept. [default: in the data directory]")
]
Fault = Annotated[FaultName | None, typer.Option(help="Make something go wrong: the demo notices, and exits with 1.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the stack up at the end.")]
Seed = Annotated[int, typer.Option(min=0, help="Another seed makes other raw scans.")]

_INTERRUPTED = 130


def demo(
    *,
    data_dir: DataDir = Path(".demo"),
    pipelines_env: Environment = Path("build/pipelines-env"),
    cache: Cache = None,
    fault: Fault = None,
    keep: Keep = False,
    seed: Seed = 1,
) -> None:
    """Play two nights of two instruments, from raw files to maps with their lineage, and check everything."""
    _play(Options(data_dir=data_dir, environment=pipelines_env, cache=cache, fault=fault, keep=keep, seed=seed))


def _play(options: Options) -> None:
    from ccat.demo.play import play  # noqa: PLC0415 - its parts would make the start of every other command slower

    try:
        with reported():
            play(options, console())
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing runs any more", err=True)
        raise SystemExit(_INTERRUPTED) from None
