"""Acts: every trial is prepared, run and looked at, and then judged."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from ccat_workflow_manager.contract.inputs import Staged, changes, looks, spoil, stage
from ccat_workflow_manager.contract.judging import findings, is_traced, is_worth, stop_after
from ccat_workflow_manager.contract.orphans import adopting
from ccat_workflow_manager.contract.running import Runner
from ccat_workflow_manager.contract.tracing import Allowed, accesses, traced
from ccat_workflow_manager.contract.values import Access, Case, Made, Report, Seen, Subject, Trial
from ccat_workflow_manager.execution import manifest as told
from ccat_workflow_manager.execution.annotations import AnnotationInvalid, annotate, read_metrics
from ccat_workflow_manager.execution.collection import Collection, RequiredOutputMissing, confirm_required
from ccat_workflow_manager.execution.command import Execution, job
from ccat_workflow_manager.execution.container import Container
from ccat_workflow_manager.execution.layout import RunLayout
from ccat_workflow_manager.execution.prepare import prepare
from ccat_workflow_manager.execution.scan import OutputRefused, scan
from ccat_workflow_manager.hpc.base import JobSpec
from ccat_workflow_manager.hpc.logs import tail

UNKNOWN_PARAMETER: Final = "parameter_that_nobody_knows"
_PIPELINE: Final = 1
_TRACE: Final = "trace.log"
_LOG_LINES: Final = 50
_MOST_NAMED: Final = 5
_LEAVE: Final = "let the software leave the permissions of directories alone"

Tell = Callable[[Trial, Seen | None], object]
"""Is told of each trial, before it and after it."""


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """Where trials are made, and by what files are watched."""

    base: Path
    subject: Subject
    strace: str | None
    runner: Runner

    def stage(self) -> Staged:
        return stage(self.subject.given, self.base / "staged")


def examine(subject: Subject, base: Path, *, tell: Tell, strace: str | None) -> Report:
    """Run a reduction as often as is needed, below a directory of its own, and say what is to be said of it.

    `strace` is the program by which is seen what files are opened, where there is one that may.
    Nothing that it started runs on return. Raises InputNotCopied, OutputRefused for inputs that are no products, and
    OSError.
    """
    with adopting() as orphans:
        runner = Runner(base, orphans, grace=subject.grace)
        return _examined(_Bench(base=base, subject=subject, strace=strace, runner=runner), tell)


def _examined(bench: _Bench, tell: Tell) -> Report:
    staged = bench.stage()
    case = Case(subject=bench.subject, seen={}, blind=_blind(bench.subject, bench.strace))
    for trial in Trial:
        target = _to_be_damaged(staged, case)
        case = replace(case, damaged=target.name if target else None)
        if not is_worth(trial, case):
            continue
        tell(trial, None)
        seen = _try(trial, bench, staged, case=case)
        tell(trial, seen)
        case = replace(case, seen={**case.seen, trial: seen})
        if seen.changed:
            staged = bench.stage()
    return Report(case, findings(case))


def _blind(subject: Subject, strace: str | None) -> str | None:
    if subject.image or strace:
        return None
    return "nobody sees here which files it opens: install strace, where processes may be traced"


def _to_be_damaged(staged: Staged, case: Case) -> Path | None:
    return staged.largest(frozenset(case.access.inputs) if case.access else None)


def _try(trial: Trial, bench: _Bench, staged: Staged, *, case: Case) -> Seen:
    execution = _execution(trial, bench.subject, base=bench.base, roots=(staged.root,))
    prepare(execution, inputs=staged.links, manifest=_manifest(trial, execution, bench.subject, inputs=staged.told))
    layout, run_layout = execution.layout, RunLayout(bench.base / trial)
    if trial is Trial.MISSING_MANIFEST:
        layout.manifest.unlink()
    if trial is Trial.DAMAGED_INPUT and (target := _to_be_damaged(staged, case)):
        spoil(target)
    before = looks(staged.root, layout.input, layout.config)
    spec = job(execution, name=f"trial-{trial}", memory_gb=bench.subject.memory_gb, time_limit=bench.subject.time_limit)
    strace = bench.strace if is_traced(trial, case) else None
    trace = layout.directory / _TRACE
    ended = bench.runner.run(_watched(spec, strace, into=trace), stop_after=stop_after(trial, case))
    return Seen(
        observation=ended.observation,
        log_tail=tail([layout.stdout, layout.stderr], lines=_LOG_LINES),
        stderr=tail([layout.stderr], lines=_LOG_LINES),
        made=_made(execution, _collection(run_layout, execution, bench.subject)),
        changed=changes(before, looks(staged.root, layout.input, layout.config)),
        left_behind=ended.left_behind,
        was_stopped=ended.was_stopped,
        access=_access(trace, execution, staged) if strace else None,
    )


def _watched(spec: JobSpec, strace: str | None, *, into: Path) -> JobSpec:
    return replace(spec, command=traced(strace, spec.command, into=into)) if strace else spec


def _execution(trial: Trial, subject: Subject, *, base: Path, roots: tuple[Path, ...]) -> Execution:
    """The attempt of a run of its own: what stamps its products with the run makes other ones each time."""
    image = subject.image
    return Execution(
        layout=RunLayout(base / trial).attempt(1),
        pipeline_id=_PIPELINE,
        run_id=list(Trial).index(trial) + 1,
        attempt=1,
        step_key=subject.step_name,
        step_name=subject.step_name,
        sub_group_key="all",
        is_final=subject.is_final,
        command=subject.command,
        environment_prefix=subject.environment_prefix,
        container=Container(sif=image.sif, roots=roots, options=subject.apptainer_options) if image else None,
        variables=subject.variables,
        cpu=subject.cpu,
    )


def _manifest(trial: Trial, execution: Execution, subject: Subject, *, inputs: told.Inputs) -> told.Manifest:
    parameters = dict(subject.parameters)
    if trial is Trial.UNKNOWN_PARAMETER:
        parameters[UNKNOWN_PARAMETER] = 1
    image = subject.image
    return told.Manifest(
        run=told.ManifestRun(id=execution.run_id, attempt=execution.attempt),
        pipeline=told.ManifestPipeline(id=execution.pipeline_id, name="contract-test", revision=1),
        step=told.ManifestStep(name=execution.step_name, is_final=execution.is_final),
        sub_group=told.ManifestSubGroup(key=execution.sub_group_key, dimensions={}),
        software=told.ManifestSoftware(
            name=Path(subject.command[0]).name,
            version="0",
            image_ref=image.reference if image else None,
            image_digest=image.digest if image else None,
        ),
        config=told.ManifestConfig(name="contract-test", digest=_digest(parameters), parameters=parameters),
        inputs=inputs,
        output=told.Output(dir=str(execution.seen_output)),
    )


def _digest(parameters: dict[str, Any]) -> str:
    text = json.dumps(parameters, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _collection(run: RunLayout, execution: Execution, subject: Subject) -> Collection:
    return Collection(
        run=run,
        attempt=execution.attempt,
        step_key=execution.step_key,
        is_final=execution.is_final,
        required_outputs=subject.required_outputs,
    )


def _made(execution: Execution, collection: Collection) -> Made:
    """Ask the collector's own parts, each for itself, so that one trouble does not hide the next."""
    output = execution.output
    try:
        if not output.is_dir():
            return Made(missing=f"the directory {output.name} that it was to write into is gone; it may not be removed")
        products = scan(output, is_final=execution.is_final)
    except OutputRefused as error:
        return Made(refused=str(error))
    except PermissionError:
        return Made(refused=f"nobody may look into the output {output.name}, or what it lies in; {_LEAVE}")
    return Made(
        products=products,
        missing=_said(partial(confirm_required, products, collection)),
        misdescribed=_said(partial(annotate, products, output)) or _said(partial(read_metrics, output)),
        elsewhere=list(_elsewhere(execution))[:_MOST_NAMED],
    )


def _said(ask: Callable[[], object]) -> str | None:
    try:
        ask()
    except (RequiredOutputMissing, AnnotationInvalid) as error:
        return str(error)
    return None


def _elsewhere(execution: Execution) -> Iterator[str]:
    workspace = execution.layout.workspace
    for path in sorted(workspace.rglob("*")):
        place = path.relative_to(workspace)
        is_file = os.path.isfile(path)  # noqa: PTH113 Path.is_file raises where nobody may look
        if is_file and not place.parts[0].startswith(".") and not path.is_relative_to(execution.output):
            yield str(place)


def _access(trace: Path, execution: Execution, staged: Staged) -> Access:
    layout = execution.layout
    words = [Path(word) for word in execution.command if Path(word).is_absolute()]
    named = [path for word in words for path in (word, word.parent) if path != path.parent]
    prefix = [execution.environment_prefix] if execution.environment_prefix else []
    allowed = Allowed(
        base=staged.root.parent,
        inputs=staged.root,
        read=[path for one in (staged.root, layout.input, layout.config, *named, *prefix) for path in _both(one)],
        written=[path for one in (layout.workspace, layout.output, layout.logs) for path in _both(one)],
        working_directory=layout.workspace,
    )
    with trace.open(encoding="utf-8", errors="replace") as lines:
        return accesses(lines, allowed)


def _both(path: Path) -> Sequence[Path]:
    """A path as it is named, and as the kernel names it."""
    return [path, path.resolve()]
