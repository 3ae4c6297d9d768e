"""From the words of `ccat contract test` to the reduction that they mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import typer
from pydantic import ValidationError

from ccat.cli.reading import read_yaml
from ccat_ops_db.definitions.document import Config
from ccat_ops_db.errors import CcatError
from ccat_workflow_manager.contract.images import ImageNotNamed, confirm_named, is_image
from ccat_workflow_manager.contract.values import Given, Subject
from ccat_workflow_manager.execution.layout import AttemptLayout

_NAMELESS: Final = "its first word is empty: name the program"
_NAME_IT: Final = "name the command that runs in it, as in `my.sif -- chai calibrate`"


@dataclass(frozen=True)
class Software:
    """What runs, and where it is installed."""

    words: Sequence[str]
    environment: Path | None
    apptainer_options: Sequence[str] | None

    @property
    def image(self) -> str | None:
        """The image that stands before the command."""
        return self.words[0] if is_image(self.words[0]) else None

    @property
    def command(self) -> tuple[str, ...]:
        """The command alone."""
        return tuple(self.words[1:] if self.image else self.words)

    def refuse_nonsense(self) -> None:
        """Raise BadParameter for what does not go together."""
        refuse_unless(not self.command or bool(self.command[0].strip()), _NAMELESS, "COMMAND")
        if not self.image:
            refuse_unless(not self.apptainer_options, "there is no image", "--apptainer-option")
            return
        refuse_unless(bool(self.command), _NAME_IT, "COMMAND")
        refuse_unless(self.environment is None, "an image brings its own environment", "--environment")
        try:
            confirm_named(self.image)
        except ImageNotNamed as error:
            raise typer.BadParameter(str(error), param_hint="IMAGE") from error


@dataclass(frozen=True)
class Inputs:
    """What it reads."""

    raw: Sequence[Path] | None
    upstream: Sequence[str] | None
    auxiliary: Sequence[str] | None
    parameters: Path | None
    variables: Sequence[str] | None

    def given(self) -> Given:
        """The files among them."""
        return Given(
            raw=tuple(path.absolute() for path in self.raw or ()),
            upstream=_paths(self.upstream, "--upstream"),
            auxiliary=_paths(self.auxiliary, "--auxiliary"),
        )


@dataclass(frozen=True)
class Step:
    """What its step asks of it."""

    name: str
    is_final: bool
    required_outputs: Sequence[str] | None


@dataclass(frozen=True)
class Limits:
    """What it may use."""

    cpu: int
    memory_gb: float
    time_hours: float
    grace_seconds: float


def subject_of(software: Software, inputs: Inputs, step: Step, *, limits: Limits) -> Subject:
    """Return what is tested, but for its image. Raises BadParameter for what makes no sense."""
    software.refuse_nonsense()
    _refuse_unsafe(step.name)
    return Subject(
        command=software.command,
        apptainer_options=tuple(software.apptainer_options or ()),
        environment_prefix=software.environment and software.environment.absolute(),
        given=inputs.given(),
        parameters=_parameters(inputs.parameters),
        variables=_variables(inputs.variables),
        step_name=step.name,
        is_final=step.is_final,
        required_outputs=tuple(step.required_outputs or ()),
        cpu=limits.cpu,
        memory_gb=limits.memory_gb,
        time_limit=timedelta(hours=limits.time_hours),
        grace=timedelta(seconds=limits.grace_seconds),
    )


def refuse_unless(is_right: bool, problem: str, where: str) -> None:  # noqa: FBT001 - read as a sentence
    """Raise BadParameter for an option."""
    if not is_right:
        raise typer.BadParameter(problem, param_hint=where)


def _refuse_unsafe(step_name: str) -> None:
    try:
        AttemptLayout(Path("/")).products(step_name, is_final=False)
    except CcatError as error:
        raise typer.BadParameter(str(error), param_hint="--step-name") from error


def _parameters(file: Path | None) -> Mapping[str, Any]:
    found = (read_yaml(file) if file else None) or {}
    refuse_unless(isinstance(found, dict), f"{file} holds no names with values", "--parameters")
    return _config("--parameters", parameters=found).parameters


def _variables(texts: Sequence[str] | None) -> Mapping[str, str]:
    given = dict(_pair(text, "--variable") for text in texts or ())
    return _config("--variable", environment=given).environment


def _config(option: str, **given: Any) -> Config:
    """What a definition would hold. Raises BadParameter for what none takes."""
    try:
        return Config(name="contract-test", **given)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"], param_hint=option) from error


def _paths(texts: Sequence[str] | None, option: str) -> tuple[tuple[str, Path], ...]:
    pairs = [(name, Path(value).absolute()) for name, value in (_pair(text, option) for text in texts or ())]
    for name, path in pairs:
        refuse_unless("/" not in name and not name.startswith("."), f"{name!r} is no name", option)
        refuse_unless(path.exists(), f"there is no {path}", option)
    return tuple(pairs)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, is_pair, value = text.partition("=")
    refuse_unless(bool(name and is_pair), f"{text!r} is not NAME=VALUE", option)
    return name, value
