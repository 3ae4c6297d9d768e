from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ccat_ops_db.definitions.auxiliary import Auxiliary
from ccat_ops_db.definitions.words import (
    A_YEAR,
    MOST,
    Identifier,
    Number,
    OutputPattern,
    Piece,
    SchedulerName,
    Switch,
    VersionText,
    WholeNumber,
)
from ccat_ops_db.plan.digests import NOT_INPUTS
from ccat_ops_db.states import DataProductType, InputReadiness, OnFailedInput, VersionPolicy, WaitFor


class Resources(Piece):
    """What a run asks the cluster for."""

    cpu: WholeNumber = Field(default=1, ge=1, le=MOST)
    memory_gb: Number = Field(default=2.0, gt=0, le=MOST, allow_inf_nan=False)
    time_hours: Number = Field(default=1.0, gt=0, le=A_YEAR / timedelta(hours=1))
    gpus: WholeNumber = Field(default=0, ge=0, le=MOST)
    """On each node."""
    nodes: WholeNumber = Field(default=1, ge=1, le=MOST)
    ntasks: WholeNumber = Field(default=1, ge=1, le=MOST)
    """Each has `cpu` CPUs; `memory_gb` is that of each node."""
    partition: SchedulerName | None = None
    """Of a Slurm cluster, as the three that follow; left out: as its location says."""
    account: SchedulerName | None = None
    qos: SchedulerName | None = None
    constraint: SchedulerName | None = None
    max_memory_gb: Number | None = Field(default=None, gt=0, le=MOST, allow_inf_nan=False)
    """What an attempt may ask for after others that it did not suffice for; left out: four times as much."""
    max_time_hours: Number | None = Field(default=None, gt=0, le=A_YEAR / timedelta(hours=1))

    @model_validator(mode="after")
    def _no_attempt_may_ask_for_less_than_the_first(self) -> "Resources":
        for name in ("memory_gb", "time_hours"):
            first, most = getattr(self, name), getattr(self, f"max_{name}")
            if most is not None and most < first:
                raise ValueError(f"`max_{name}` is less than `{name}`, which the first attempt asks for; raise it")
        return self

    def as_stored(self) -> dict[str, float | str]:
        """What of it is given, as JSON; what every run asks for is there in any case."""
        always = {name: getattr(self, name) for name in ("cpu", "memory_gb", "time_hours")}
        return {**always, **self.model_dump(exclude_none=True, exclude_defaults=True)}


Input = Literal["raw", "upstream", "log", "plot", "statistics"]
INPUTS: Final[Sequence[str]] = get_args(Input)
_SWITCHES: Final = frozenset({"archive", "recompute"})


class Step(Piece):
    """One program applied to every sub-group."""

    key: Identifier
    name: str = ""
    group_by: tuple[str, ...]
    cooldown_seconds: WholeNumber = Field(default=0, ge=0, le=int(A_YEAR.total_seconds()))
    software: Identifier
    version_policy: VersionPolicy = VersionPolicy.COMPATIBLE
    version: VersionText | None = None
    config: Identifier | None = None
    depends_on: tuple[Identifier, ...] = ()
    inputs: tuple[Input, ...] | None = None
    """Logs, plots and statistics are taken only where they are named."""
    auxiliary: tuple[Auxiliary, ...] = ()
    on_failed_input: OnFailedInput = OnFailedInput.BLOCK
    """Whether packages are waited for that were given up upstream."""
    readiness: InputReadiness = InputReadiness.COMPLETE
    min_fraction: Number | None = Field(default=None, gt=0, le=1)
    """Of readiness `available`: fraction of the packages that must be ready; left out: any one of them."""
    wait_for: WaitFor | None = None
    products: Literal["final", "intermediate"] | None = None
    required_outputs: tuple[OutputPattern, ...] = ()
    resources: Resources = Resources()
    max_retries: WholeNumber = Field(default=1, ge=0, le=1_000)
    retention_days: WholeNumber | None = Field(default=None, ge=0, le=36_600)
    """Left out: products of an intermediate step for 30 days, those of a final one for ever."""
    archive: Switch = False
    """Whether what it makes, which is final, is copied into a long-term archive."""
    recompute: Switch = False
    """Whether what it makes, which is intermediate, may be deleted while others take it, and is made again for them."""

    @model_serializer(mode="wrap")
    def _a_switch_that_is_off_says_nothing(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that a definition from before there were `archive` and `recompute` stays the same."""
        written: dict[str, Any] = serialize(self)
        return {key: value for key, value in written.items() if value or key not in _SWITCHES}

    @property
    def takes_raw(self) -> bool:
        """Whether raw packages are inputs; a dependent step gets upstream products only, unless it says otherwise."""
        return "raw" in self.inputs if self.inputs is not None else not self.depends_on

    @property
    def listed(self) -> Sequence[DataProductType]:
        """Product types that are taken because they are named."""
        return sorted(one for one in NOT_INPUTS if one in (self.inputs or ()))

    @model_validator(mode="after")
    def _version_goes_with_its_policy(self) -> "Step":
        if (self.version_policy is VersionPolicy.EXACT) != (self.version is not None):
            raise ValueError("`version` is given with `version_policy: exact`, and only then")
        return self

    @model_validator(mode="after")
    def _upstream_is_an_input_where_there_is_any(self) -> "Step":
        if self.inputs is not None and ("upstream" in self.inputs) != bool(self.depends_on):
            raise ValueError("`inputs` names `upstream` where `depends_on` names a step, and only then")
        if self.inputs == ():
            raise ValueError("`inputs` is empty; leave it out, or name `raw`, `upstream` or both")
        if self.listed and not self.depends_on:
            raise ValueError(f"`inputs` names `{self.listed[0]}`, which only a step that `depends_on` another takes")
        return self

    @model_validator(mode="after")
    def _readiness_is_that_of_what_it_depends_on(self) -> "Step":
        if self.min_fraction is not None and self.readiness is not InputReadiness.AVAILABLE:
            raise ValueError("`min_fraction` goes with `readiness: available`; write that too, or leave it out")
        for name in ("on_failed_input", "readiness"):
            if not self.depends_on and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` is about what `depends_on` names, and it names nothing; leave it out")
        return self

    @model_validator(mode="after")
    def _only_a_step_by_scan_waits_for_it(self) -> "Step":
        if self.wait_for is WaitFor.SCAN_COMPLETE and "executed_obs_unit" not in self.group_by:
            raise ValueError("`wait_for: scan_complete` needs `executed_obs_unit` in `group_by`")
        return self
