"""`python -m bench NAME` measures one thing, `python -m bench` one after the other."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import typer

from bench import collect, gaps, incremental, latency, lifecycle, lineage, plan, retention, rules, slurm, transfer
from bench.figures import Figure, NotMeasurable, tell

BENCHMARKS: Final[Mapping[str, Callable[..., Iterable[Figure]]]] = {
    "collect": collect.measure,
    "gaps": gaps.measure,
    "incremental": incremental.measure,
    "latency": latency.measure,
    "lifecycle": lifecycle.measure,
    "lineage": lineage.measure,
    "plan": plan.measure,
    "retention": retention.measure,
    "rules": rules.measure,
    "slurm": slurm.measure,
    "transfer": transfer.measure,
}
NOT_MEASURED: Final = 77
"""Exit code, by custom that of a test which was skipped."""
RESULTS: Final = Path(__file__).with_name("results.json")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def measure_all(context: typer.Context) -> None:
    """Measure one thing; without a name all of them, each in a process of its own, into bench/results.json."""
    if context.invoked_subcommand is None:
        found = [_measured(name) for name in BENCHMARKS]
        RESULTS.write_text(json.dumps([one for one in found if one is not None], indent=2) + "\n")


def _measured(name: str) -> Any:
    """The last line of a benchmark, all of whose lines are passed on; None where this machine lacks what it needs."""
    line = ""
    with subprocess.Popen([sys.executable, "-m", "bench", name], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
    if process.returncode == NOT_MEASURED:
        return None
    if process.returncode:
        raise typer.Exit(process.returncode)
    return json.loads(line)


def _command(name: str, measure: Callable[..., Iterable[Figure]]) -> Callable[..., None]:
    @functools.wraps(measure)
    def command(**options: Any) -> None:
        try:
            tell(name, measure(**options))
        except NotMeasurable as error:
            print(f"{name} cannot be measured here: {error}", file=sys.stderr)
            raise typer.Exit(NOT_MEASURED) from error

    return command


for _name, _measure in BENCHMARKS.items():
    app.command(_name)(_command(_name, _measure))

if __name__ == "__main__":
    app(prog_name="python -m bench")
