"""What our jobs are called at a cluster, and how they are told from those of others."""

import re
from hashlib import sha256
from pathlib import Path
from typing import Final

OURS: Final = "ccat-data-center/files"
"""Label of jobs and pods: a digest of the directory that has their records."""
JOB: Final = "ccat-data-center/job"
"""Label of pods: the job that they are of. That of Kubernetes itself was renamed once."""
DIRECTORY: Final = "ccat-data-center/directory"
"""Annotation of a job, for people: the directory of its attempt."""
_LONGEST: Final = 63
_DIGITS: Final = 12
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def cluster_name(name: str) -> str:
    """Return the name of a job at the cluster: its own, or one made of it where Kubernetes would not take that.

    Kubernetes labels pods with it, and so takes lower case letters, digits and dashes, 63 at most.
    """
    if len(name) <= _LONGEST and _LABEL.fullmatch(name):
        return name
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: _LONGEST - _DIGITS - 1].strip("-")
    return f"{plain}-{digest(name)}".lstrip("-")


def owner(base: Path) -> str:
    """Return what stands in the label of all jobs whose records lie below `base`."""
    return digest(str(base))


def digest(text: str) -> str:
    """Return a short name that stands for a long one."""
    return sha256(text.encode(errors="surrogateescape")).hexdigest()[:_DIGITS]
