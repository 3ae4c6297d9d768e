"""The command `primecam`."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

from ccat_pipelines.command import run_step, use_one_thread
from ccat_pipelines.contract import DISTRIBUTION

STEPS = {
    "calibrate-planet": "planet scans of one night: responsivity of every detector, and which ones are good",
    "map": "science scans of one source, with the calibration of their night: map, hit map and null map",
    "fit": "a map: its point sources, and whether the rest is noise",
    "check": "map and sources of simulated scans against their truth",
}


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one step, or simulate raw files, and return the exit code."""
    options = _parser().parse_args(argv)
    if options.command in STEPS:
        return run_step("ccat_pipelines.primecam", options.command, environ=environ)
    use_one_thread()
    from ccat_pipelines.primecam.make_raw import make_raw  # noqa: PLC0415  # slow to import and not for every step

    make_raw(options.out, seed=options.seed, nights=options.nights, first_night=options.first_night)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="primecam", description="Prime-Cam-like reduction of timestreams to maps.")
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {version(DISTRIBUTION)}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for step, summary in STEPS.items():
        commands.add_parser(step, help=summary, description=f"{summary}; reads WORKFLOW_MANIFEST.")
    raw = commands.add_parser("make-raw", help="simulate raw scans with known truth")
    raw.add_argument("--seed", type=int, required=True, help="the same seed makes the same bytes")
    raw.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; made if absent")
    raw.add_argument(
        "--nights", type=int, default=1, help="how many, of a planet and three science scans (default: %(default)s)"
    )
    raw.add_argument(
        "--first-night",
        type=date.fromisoformat,
        default=date(2026, 4, 1),
        metavar="DATE",
        help="observing night of the first scans, named by the evening's date (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
