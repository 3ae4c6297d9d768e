"""Fetches an image into a cache that has no room for others, and dies of it where it is told to.

python image_mortal.py DIRECTORY REFERENCE DIGEST
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

from ccat.crashing import VARIABLE, arm_from_environment
from ccat_workflow_manager.hpc.images.cache import SifCache
from ccat_workflow_manager.hpc.images.fetching import Image, fetch


def main(directory: str, reference: str, digest: str, longest: str = "") -> None:
    if VARIABLE in os.environ:
        arm_from_environment()
    if longest:
        fetch(Image(reference, digest), Path(directory) / "image.sif", longest=timedelta(seconds=float(longest)))
    SifCache(Path(directory), most_bytes=1, patience=timedelta(minutes=1)).require(Image(reference, digest))


if __name__ == "__main__":
    main(*sys.argv[1:])
