"""The command `gbt`."""

import os
import sys
from collections.abc import Mapping, Sequence

from ccat_pipelines.command import parser_of, run_step

STEPS = {"getps": "one ON and one OFF scan, from SDFITS counts to antenna temperature"}


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one step and return the exit code."""
    parser, _ = parser_of("gbt", "Green Bank Telescope, position switching.", STEPS)
    return run_step("ccat_pipelines.gbt", parser.parse_args(argv).command, environ=environ)


if __name__ == "__main__":
    sys.exit(main())
