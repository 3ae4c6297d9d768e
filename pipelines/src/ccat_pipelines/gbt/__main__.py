"""The command `gbt`."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from ccat_pipelines.command import run_step
from ccat_pipelines.contract import DISTRIBUTION


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one step and return the exit code."""
    parser = argparse.ArgumentParser(prog="gbt", description="Green Bank Telescope, position switching.")
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {version(DISTRIBUTION)}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("getps", help="one ON and one OFF scan, from SDFITS counts to antenna temperature")
    return run_step("ccat_pipelines.gbt", parser.parse_args(argv).command, environ=environ)


if __name__ == "__main__":
    sys.exit(main())
