from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from ccat.cli.output import AsJson
from ccat_ops_db.definitions.steps import Resources
from ccat_ops_db.definitions.words import A_YEAR, MOST

app = typer.Typer(no_args_is_help=True, help="What reduction software has to keep.")

_ASKED = Resources()
_A_DAY = 86_400
_INPUTS, _STEP = "Its inputs", "Its step, as a definition has it"

Words = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE_OR_COMMAND…", help="An image and `--` and what runs in it, or `--` and a command."),
]
Environment = Annotated[
    Path | None,
    typer.Option(metavar="PREFIX", exists=True, file_okay=False, help="Where a command without an image is installed."),
]
Raw = Annotated[
    list[Path] | None,
    typer.Option(exists=True, help="A raw package: a directory, or a file.", rich_help_panel=_INPUTS),
]
Upstream = Annotated[
    list[str] | None,
    typer.Option(metavar="STEP=PATH", help="Products of a step before: a directory, or one.", rich_help_panel=_INPUTS),
]
Auxiliary = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=PATH", help="A calibration: a directory, or a product.", rich_help_panel=_INPUTS),
]
Parameters = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="YAML or JSON file of parameters.", rich_help_panel=_INPUTS),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--variable", metavar="NAME=VALUE", help="What the config adds to its environment.", rich_help_panel=_INPUTS
    ),
]
StepName = Annotated[str, typer.Option(help="How the step is called.", rich_help_panel=_STEP)]
Final = Annotated[bool, typer.Option("--final/--intermediate", help="What its products are.", rich_help_panel=_STEP)]
Required = Annotated[
    list[str] | None,
    typer.Option("--required-output", metavar="GLOB", help="What it has to make.", rich_help_panel=_STEP),
]
Cpu = Annotated[int, typer.Option(min=1, max=MOST, help="CPUs that it may use.", rich_help_panel=_STEP)]
MemoryGb = Annotated[float, typer.Option(min=0.001, max=MOST, help="Past this it is killed.", rich_help_panel=_STEP)]
TimeHours = Annotated[
    float,
    typer.Option(min=0.0001, max=A_YEAR / timedelta(hours=1), help="After this it is killed.", rich_help_panel=_STEP),
]
Grace = Annotated[
    float, typer.Option(min=0, max=_A_DAY, help="Seconds between SIGTERM and SIGKILL.", rich_help_panel=_STEP)
]
ApptainerOptions = Annotated[
    list[str] | None, typer.Option("--apptainer-option", metavar="OPTION", help="Of the location, such as --userns.")
]
Keep = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Leave everything there, to be looked at; it must be empty or new.")
]


@app.command("test")
def contract_test(
    words: Words,
    *,
    environment: Environment = None,
    raw: Raw = None,
    upstream: Upstream = None,
    auxiliary: Auxiliary = None,
    parameters: Parameters = None,
    variables: Variables = None,
    step_name: StepName = "step",
    final: Final = False,
    required: Required = None,
    cpu: Cpu = _ASKED.cpu,
    memory_gb: MemoryGb = _ASKED.memory_gb,
    time_hours: TimeHours = _ASKED.time_hours,
    grace: Grace = 10.0,
    apptainer_options: ApptainerOptions = None,
    keep: Keep = None,
    json: AsJson = False,
) -> None:
    r"""Run a reduction a few times as a step would run it, and say point by point whether it keeps the contract.

    It needs no database and no running stack. Exit code 0: nothing is broken; 1: something is; 2: wrong usage.

    \b
    ccat contract test my.sif -- chai calibrate
    ccat contract test docker://registry/chai@sha256:… -- chai calibrate
    ccat contract test --environment build/pipelines-env -- chai calibrate
    ccat contract test --raw scan.fits --parameters chai.yaml my.sif -- chai calibrate

    Without inputs of yours small ones are made, which mean nothing to it: that it refuses them with 65 is all that is
    judged of its results then. It gets copies of inputs, never the files themselves.
    """
    from ccat.cli.contract_options import Inputs, Limits, Software, Step  # noqa: PLC0415 - slow, as the next one
    from ccat.cli.contract_testing import test_and_tell  # noqa: PLC0415 - other commands would start later

    software, step = Software(words, environment, apptainer_options), Step(step_name, final, required)
    inputs = Inputs(raw, upstream, auxiliary, parameters, variables)
    limits = Limits(cpu, memory_gb, time_hours, grace)
    test_and_tell(software, inputs, step, limits=limits, keep=keep, as_json=json)
