"""The command `primecam`."""

import os
import sys
from collections.abc import Mapping, Sequence

from ccat_pipelines.command import add_make_raw, parser_of, run_step, use_one_thread

STEPS = {
    "calibrate-planet": "planet scans of one night: responsivity of every detector, and which ones are good",
    "map": "science scans of one source, with the calibration of their night: map, hit map and null map",
    "fit": "a map: its point sources, and whether the rest is noise",
    "check": "map and sources of simulated scans against their truth",
}


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one step, or simulate raw files, and return the exit code."""
    parser, commands = parser_of("primecam", "Prime-Cam-like reduction of timestreams to maps.", STEPS)
    add_make_raw(commands, "--nights", default=1, what="of a planet and three science scans")
    options = parser.parse_args(argv)
    if options.command in STEPS:
        return run_step("ccat_pipelines.primecam", options.command, environ=environ)
    use_one_thread()
    from ccat_pipelines.primecam.make_raw import make_raw  # noqa: PLC0415  # slow to import and not for every step

    make_raw(options.out, seed=options.seed, nights=options.nights, first_night=options.first_night)
    return 0


if __name__ == "__main__":
    sys.exit(main())
