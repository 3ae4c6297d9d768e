"""What is asked of a reduction, what was seen of it, and what that means for each point of the contract."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from ccat_workflow_manager.execution.products import Product
from ccat_workflow_manager.hpc.base import JobObservation


class Verdict(StrEnum):
    """What is said of a point."""

    KEPT = "kept"
    WARNED = "warned"
    """It works, and will be regretted."""
    BROKEN = "broken"
    NOT_JUDGED = "not judged"


class Point(StrEnum):
    """What the contract asks, in the order in which it is told. The values are published in `--json`."""

    STARTS = "starts"
    EXIT_CODE = "exit_code"
    CAUSE = "cause"
    REQUIRED_OUTPUTS = "required_outputs"
    PRODUCTS = "products"
    ANNOTATIONS = "annotations"
    SORTING = "sorting"
    INPUTS_UNCHANGED = "inputs_unchanged"
    READS = "reads"
    WRITES = "writes"
    NETWORK = "network"
    PROCESSES = "processes"
    MEMORY = "memory"
    TIME = "time"
    CPU = "cpu"
    SAME_BYTES = "same_bytes"
    UNKNOWN_PARAMETER = "unknown_parameter"
    MISSING_MANIFEST = "missing_manifest"
    TERMINATION = "termination"
    DAMAGED_INPUT = "damaged_input"


class Trial(StrEnum):
    """One execution of the reduction, in the order in which they are made; the last one spoils the inputs."""

    RUN = "run"
    AGAIN = "again"
    UNKNOWN_PARAMETER = "unknown-parameter"
    MISSING_MANIFEST = "missing-manifest"
    TERMINATION = "termination"
    DAMAGED_INPUT = "damaged-input"


@dataclass(frozen=True)
class Finding:
    """What was seen of a point and, where there is something to do, what."""

    point: Point
    verdict: Verdict
    said: str


@dataclass(frozen=True)
class Image:
    """An image as a definition names it, and the SIF file that is run."""

    reference: str
    digest: str
    sif: Path


@dataclass(frozen=True, kw_only=True)
class Given:
    """Inputs of the team: packages, and products by step or name. Without any, small ones are made."""

    raw: Sequence[Path] = ()
    upstream: Sequence[tuple[str, Path]] = ()
    auxiliary: Sequence[tuple[str, Path]] = ()

    def __bool__(self) -> bool:
        return bool(self.raw or self.upstream or self.auxiliary)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The reduction, as a version, a step and a config of definitions would describe it."""

    command: tuple[str, ...]
    image: Image | None = None
    apptainer_options: tuple[str, ...] = ()
    environment_prefix: Path | None = None
    given: Given = field(default_factory=Given)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    step_name: str = "step"
    is_final: bool = False
    required_outputs: Sequence[str] = ()
    cpu: int = 1
    memory_gb: float = 2.0
    time_limit: timedelta = timedelta(hours=1)
    grace: timedelta = timedelta(seconds=10)


@dataclass(frozen=True)
class Access:
    """What the processes of a trial reached outside of what they were given, as the kernel was seen to allow it."""

    read: Sequence[str] = ()
    written: Sequence[str] = ()
    temporary: Sequence[str] = ()
    """Written where all processes of a host have their temporary files."""
    contacted: Sequence[str] = ()
    inputs: Sequence[str] = ()
    """The input files among what was read."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the collector says of the output: its products, or in its own words why it would not take them."""

    products: Sequence[Product] = ()
    refused: str | None = None
    missing: str | None = None
    misdescribed: str | None = None
    elsewhere: Sequence[str] = ()
    """Files in the workspace, where nobody collects them."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of one trial."""

    observation: JobObservation
    log_tail: str
    stderr: str
    made: Made
    changed: Sequence[str] = ()
    """What of its inputs and its config is not as it was."""
    left_behind: Sequence[str] = ()
    """Names of processes that went on after its end."""
    was_stopped: bool = False
    """Whether it still ran when it was asked to end."""
    access: Access | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that a verdict is made of."""

    subject: Subject
    seen: Mapping[Trial, Seen]
    damaged: str | None = None
    """The input file that is spoilt for the last trial: one that was read, where that is seen; None without one."""
    blind: str | None = None
    """Why nobody can see what files are opened; None where that can be seen."""

    @property
    def access(self) -> Access | None:
        """What was seen of it; None where nothing was."""
        again = self.seen.get(Trial.AGAIN)
        return again.access if again else None


@dataclass(frozen=True)
class Report:
    """What `examine` found, with what it found it from."""

    case: Case
    findings: Sequence[Finding]

    @property
    def broken(self) -> Sequence[Finding]:
        """The points that are not kept."""
        return self.with_verdict(Verdict.BROKEN)

    def with_verdict(self, verdict: Verdict) -> Sequence[Finding]:
        """The points of which that is said."""
        return [one for one in self.findings if one.verdict is verdict]
