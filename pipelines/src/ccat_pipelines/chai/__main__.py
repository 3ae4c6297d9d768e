"""The command `chai`."""

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
    "calibrate": "one raw scan, from counts to antenna temperature",
    "baseline": "one calibrated scan: take off baseline and standing wave, flag broken pixels, weigh",
    "grid": "baselined scans of one source: cube, moment 0 and weight map",
    "check": "a map of simulated scans against their truth",
}


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one step, or simulate raw files, and return the exit code."""
    options = _parser().parse_args(argv)
    if options.command in STEPS:
        return run_step("ccat_pipelines.chai", options.command, environ=environ)
    use_one_thread()
    from ccat_pipelines.chai.make_raw import make_raw  # noqa: PLC0415  # slow to import and not for every step

    make_raw(options.out, seed=options.seed, scans=options.scans, first_night=options.first_night)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chai", description="CHAI-like spectral line reduction.")
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {version(DISTRIBUTION)}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for step, summary in STEPS.items():
        commands.add_parser(step, help=summary, description=f"{summary}; reads WORKFLOW_MANIFEST.")
    raw = commands.add_parser("make-raw", help="simulate raw scans with known truth")
    raw.add_argument("--seed", type=int, required=True, help="the same seed makes the same bytes")
    raw.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; made if absent")
    raw.add_argument("--scans", type=int, default=4, help="how many, three a night (default: %(default)s)")
    raw.add_argument(
        "--first-night",
        type=date.fromisoformat,
        default=date(2026, 4, 1),
        metavar="DATE",
        help="observing night of the first scan, named by the evening's date (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
