"""Every status of every noun, and the table of its legal moves.

This module is data: it imports nothing but the enum type. `moves.advance` is the only writer of a status column and
accepts exactly the moves written here. A status without an entry as a key is final.
"""

from enum import StrEnum
from typing import Final


class RunStatus(StrEnum):
    """Status of an ExecutedReductionStep."""

    PENDING = "pending"
    STAGING_DATA = "staging_data"
    SUBMITTED = "submitted"
    RUNNING = "running"
    COLLECTING_RESULTS = "collecting_results"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


LIVE_RUN_STATUSES: Final = (
    RunStatus.PENDING,
    RunStatus.STAGING_DATA,
    RunStatus.SUBMITTED,
    RunStatus.RUNNING,
    RunStatus.COLLECTING_RESULTS,
)
"""A run in one of these, or FAILED with `retry_at`, is *active*: its sub-group gets no second one."""

RUN_MOVES: Final = {
    RunStatus.PENDING: frozenset({RunStatus.STAGING_DATA, RunStatus.CANCELLED}),
    RunStatus.STAGING_DATA: frozenset({RunStatus.SUBMITTED, RunStatus.PENDING, RunStatus.FAILED, RunStatus.CANCELLED}),
    RunStatus.SUBMITTED: frozenset(
        {
            RunStatus.RUNNING,
            RunStatus.COLLECTING_RESULTS,
            RunStatus.PENDING,
            RunStatus.FAILED,
            RunStatus.CANCELLED,
        }
    ),
    RunStatus.RUNNING: frozenset(
        {RunStatus.COLLECTING_RESULTS, RunStatus.PENDING, RunStatus.FAILED, RunStatus.CANCELLED}
    ),
    RunStatus.COLLECTING_RESULTS: frozenset({RunStatus.COMPLETED, RunStatus.FAILED}),
    RunStatus.FAILED: frozenset({RunStatus.PENDING}),
}


class PackageState(StrEnum):
    """State of a RawDataPackage on its way into the archive."""

    WAITING = "waiting"
    TRANSFERRING = "transferring"
    ARCHIVED = "archived"
    FAILED = "failed"


PACKAGE_MOVES: Final = {
    PackageState.WAITING: frozenset({PackageState.TRANSFERRING, PackageState.FAILED}),
    PackageState.TRANSFERRING: frozenset({PackageState.ARCHIVED, PackageState.FAILED}),
    PackageState.FAILED: frozenset({PackageState.WAITING, PackageState.TRANSFERRING}),
}


class Status(StrEnum):
    """Status of a StagingJob, a DataTransfer, a LongTermArchiveTransfer or a ProductArchiveTransfer."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


LIVE_TRANSFER_STATUSES: Final = (Status.PENDING, Status.SCHEDULED, Status.IN_PROGRESS)

TRANSFER_MOVES: Final = {
    Status.PENDING: frozenset({Status.SCHEDULED, Status.CANCELLED}),
    Status.SCHEDULED: frozenset({Status.IN_PROGRESS, Status.PENDING, Status.FAILED, Status.CANCELLED}),
    Status.IN_PROGRESS: frozenset({Status.COMPLETED, Status.PENDING, Status.FAILED, Status.CANCELLED}),
    Status.FAILED: frozenset({Status.PENDING}),
}


class PhysicalCopyStatus(StrEnum):
    """Status of one object at one location."""

    WRITING = "writing"
    PRESENT = "present"
    STAGED = "staged"
    CORRUPT = "corrupt"
    MISSING = "missing"
    DELETION_POSSIBLE = "deletion_possible"
    DELETION_SCHEDULED = "deletion_scheduled"
    DELETION_IN_PROGRESS = "deletion_in_progress"
    DELETION_FAILED = "deletion_failed"
    DELETED = "deleted"


SOUND_COPY_STATUSES: Final = (
    PhysicalCopyStatus.PRESENT,
    PhysicalCopyStatus.DELETION_POSSIBLE,
    PhysicalCopyStatus.DELETION_SCHEDULED,
)
"""Copies of a product that it can be had from: one that is only to go is taken back by whoever needs it."""

_Copy = PhysicalCopyStatus
PHYSICAL_COPY_MOVES: Final = {
    _Copy.WRITING: frozenset({_Copy.PRESENT, _Copy.MISSING, _Copy.DELETED}),
    _Copy.PRESENT: frozenset({_Copy.STAGED, _Copy.CORRUPT, _Copy.MISSING, _Copy.DELETION_POSSIBLE}),
    _Copy.STAGED: frozenset({_Copy.CORRUPT, _Copy.MISSING, _Copy.DELETION_POSSIBLE}),
    _Copy.DELETION_POSSIBLE: frozenset({_Copy.DELETION_SCHEDULED, _Copy.PRESENT, _Copy.STAGED}),
    _Copy.DELETION_SCHEDULED: frozenset({_Copy.DELETION_IN_PROGRESS, _Copy.DELETION_POSSIBLE}),
    _Copy.DELETION_IN_PROGRESS: frozenset({_Copy.DELETED, _Copy.DELETION_FAILED}),
    _Copy.DELETION_FAILED: frozenset({_Copy.DELETION_SCHEDULED}),
    _Copy.CORRUPT: frozenset({_Copy.DELETED}),
    _Copy.MISSING: frozenset({_Copy.DELETED}),
}


class ProductState(StrEnum):
    """Validity of a DataProduct; exactly one state at a time."""

    CURRENT = "current"
    SUPERSEDED = "superseded"
    ORPHANED = "orphaned"
    WITHDRAWN = "withdrawn"
    TRIAL = "trial"


PRODUCT_MOVES: Final = {
    ProductState.CURRENT: frozenset({ProductState.SUPERSEDED, ProductState.ORPHANED, ProductState.WITHDRAWN}),
    ProductState.ORPHANED: frozenset({ProductState.SUPERSEDED, ProductState.WITHDRAWN}),
    ProductState.SUPERSEDED: frozenset({ProductState.WITHDRAWN}),
    ProductState.TRIAL: frozenset({ProductState.WITHDRAWN}),
    ProductState.WITHDRAWN: frozenset({ProductState.CURRENT, ProductState.SUPERSEDED, ProductState.TRIAL}),
}
"""Reinstated, the products of the newest run of a sub-group are CURRENT again, those of an older one SUPERSEDED."""


class VersionState(StrEnum):
    """State of a ReductionSoftwareVersion; only RELEASED ones start new work."""

    RELEASED = "released"
    RETIRED = "retired"
    WITHDRAWN = "withdrawn"


VERSION_MOVES: Final = {
    VersionState.RELEASED: frozenset({VersionState.RETIRED, VersionState.WITHDRAWN}),
    VersionState.RETIRED: frozenset({VersionState.RELEASED, VersionState.WITHDRAWN}),
    VersionState.WITHDRAWN: frozenset({VersionState.RETIRED}),
}


class TriggerType(StrEnum):
    """When a pipeline is evaluated."""

    CONTINUOUS = "continuous"
    CRON = "cron"
    MANUAL = "manual"


class VersionPolicy(StrEnum):
    """Which released version new work uses, and when existing products are redone for a newer one."""

    EXACT = "exact"
    COMPATIBLE = "compatible"
    LATEST = "latest"


class RunReason(StrEnum):
    """Why a run is necessary."""

    MISSING = "missing"
    INPUTS_CHANGED = "inputs_changed"
    RECIPE_CHANGED = "recipe_changed"
    UPSTREAM_CHANGED = "upstream_changed"
    AUXILIARY_CHANGED = "auxiliary_changed"
    INVALIDATED = "invalidated"
    REQUESTED = "requested"
    """Nothing made it necessary: somebody wanted it all the same."""
    RECOMPUTE = "recompute"
    """A run takes what it made, and that was deleted."""


NEW_DATA: Final = (RunReason.MISSING, RunReason.INPUTS_CHANGED)
"""Reasons that new data give; a run for any other does again what was done before."""


class Verdict(StrEnum):
    """What is to be done about a sub-group."""

    UP_TO_DATE = "up_to_date"
    WANTED = "wanted"
    COOLING = "cooling"
    BLOCKED = "blocked"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Readiness(StrEnum):
    """Which packages of a sub-group its newest run covers as they are wanted now."""

    ALL = "all"
    COVERED = "covered"
    """Those that went into it: only later ones are missing."""
    NONE = "none"


class LeftOut(StrEnum):
    """Why a run of now goes without a package of its sub-group, which is not ready upstream."""

    OMITTED = "omitted"
    """It is not waited for: it was given up upstream, and the step omits such packages."""
    AWAITED = "awaited"
    """The step takes what is available, and enough of it."""


class OnFailedInput(StrEnum):
    """What a step does about packages that were given up upstream: a run failed for good, or was cancelled."""

    BLOCK = "block"
    OMIT = "omit"


class InputReadiness(StrEnum):
    """How much of what was there at its cut-off a run waits for."""

    COMPLETE = "complete"
    AVAILABLE = "available"


class WaitFor(StrEnum):
    """What else a step waits for."""

    SCAN_COMPLETE = "scan_complete"
    """All that its scan recorded, of every instrument module, is in the archive."""


class OnMissing(StrEnum):
    """What a step does while nothing is there that a rule for an auxiliary input could choose."""

    WAIT = "wait"
    FAIL = "fail"
    """It is given up, until something is there."""


class FailureClass(StrEnum):
    """Kind of a failure; it decides about retries."""

    INFRASTRUCTURE = "infrastructure"
    RESOURCES = "resources"
    PAYLOAD = "payload"
    DATA = "data"
    CONFIGURATION = "configuration"


class Resource(StrEnum):
    """What a job may use up; the next attempt asks for more of it."""

    MEMORY = "memory"
    TIME = "time"


class InputRole(StrEnum):
    """What an input is to the run that uses it."""

    RAW = "raw"
    UPSTREAM = "upstream"
    AUXILIARY = "auxiliary"


class DataProductType(StrEnum):
    """What a data product is for; given by the directory where the software wrote it."""

    SCIENCE = "science"
    QA_METRIC = "qa_metric"
    PLOT = "plot"
    STATISTICS = "statistics"
    LOG = "log"
    INTERMEDIATE = "intermediate"


class SourceKind(StrEnum):
    """What kind of thing is pointed at."""

    FIXED_SOURCE = "fixed_source"
    SOLAR_SYSTEM_OBJECT = "solar_system_object"
    CONSTANT_ELEVATION_SOURCE = "constant_elevation_source"


class LocationType(StrEnum):
    """What a location is for."""

    SOURCE = "source"
    BUFFER = "buffer"
    LONG_TERM_ARCHIVE = "long_term_archive"
    PROCESSING = "processing"


class StorageType(StrEnum):
    """How a location stores; discriminates the DataLocation family."""

    DISK = "disk"
    S3 = "s3"
    TAPE = "tape"


STORAGES: Final = {
    LocationType.SOURCE: frozenset({StorageType.DISK}),
    LocationType.BUFFER: frozenset({StorageType.DISK}),
    LocationType.LONG_TERM_ARCHIVE: frozenset({StorageType.DISK, StorageType.S3}),
    LocationType.PROCESSING: frozenset({StorageType.DISK}),
}
"""What a location may be on, by what it is for. Nothing is on tape: no backend reads and writes it."""


class RouteType(StrEnum):
    """How a transfer route leads from site to site."""

    DIRECT = "direct"
    RELAY = "relay"
    CUSTOM = "custom"


class Mover(StrEnum):
    """What moves bytes along a route."""

    COPY = "copy"
    """The workers of the destination see the files of the origin: one machine, or a disk that both have."""
    RSYNC = "rsync"
    """Over SSH."""
    BBCP = "bbcp"
    """Over several streams at once; foreseen, and not built."""


class Runtime(StrEnum):
    """How a software version is executed."""

    PROCESS = "process"
    APPTAINER = "apptainer"


class BackendName(StrEnum):
    """Which kind of cluster a processing location submits to."""

    LOCAL = "local"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"


class AlertKind(StrEnum):
    """What people are told without asking."""

    FAILED_FOR_GOOD = "failed_for_good"
    DEAD_SERVICE = "dead_service"
    FULL_DISK = "full_disk"
    UNUSABLE_LOCATION = "unusable_location"
    LOST_COPY = "lost_copy"
    BACKLOG = "backlog"
