"""The command `chai`."""

import os
import sys
from collections.abc import Mapping, Sequence

from ccat_pipelines.command import add_make_raw, parser_of, run_step, use_one_thread

STEPS = {
    "calibrate": "one raw scan, from counts to antenna temperature",
    "baseline": "one calibrated scan: take off baseline and standing wave, flag broken pixels, weigh",
    "grid": "baselined scans of one source: cube, moment 0 and weight map",
    "check": "a map of simulated scans against their truth",
}


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one step, or simulate raw files, and return the exit code."""
    parser, commands = parser_of("chai", "CHAI-like spectral line reduction.", STEPS)
    add_make_raw(commands, "--scans", default=4, what="three a night")
    options = parser.parse_args(argv)
    if options.command in STEPS:
        return run_step("ccat_pipelines.chai", options.command, environ=environ)
    use_one_thread()
    from ccat_pipelines.chai.make_raw import make_raw  # noqa: PLC0415  # slow to import and not for every step

    make_raw(options.out, seed=options.seed, scans=options.scans, first_night=options.first_night)
    return 0


if __name__ == "__main__":
    sys.exit(main())
