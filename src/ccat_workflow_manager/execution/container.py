"""Software in an image: how Apptainer is called, and what its last words mean. Nothing here is read by a shell."""

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ccat_ops_db.states import FailureClass
from ccat_workflow_manager.execution.layout import INSIDE, AttemptLayout

SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
INNER_PREFIX: Final = "APPTAINERENV_"
"""Apptainer gives what begins so to the software, without this beginning, and nothing else of its own environment."""
_TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108 what the software finds there is its attempt's own
_OWN_CODES: Final = frozenset({1, 255})
"""With which Apptainer ends where it could not start the software."""
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_MESSAGE: Final = re.compile(r"(?P<level>FATAL:   |ERROR  : |WARNING: |INFO:    )(?P<text>.*)")
"""As Apptainer pads them."""
_NOT_RUN: Final = frozenset({126, 127})
_ABSENT: Final = re.compile(r"timeout: failed to run command .*: (?P<why>[^:]+)")
_MISUSED: Final = 'Error for command "exec": '
_NOT_IN_IMAGE: Final = re.compile(
    r"executable file not found|^stat .*: no such file|^permission denied|^is a directory|^exec .* failed:"
)
_WRONG_IMAGE: Final = re.compile(r"could not open image .*: (?P<why>the image's architecture .*|image format not .*)")
_UNREADABLE: Final = re.compile(r"could not open image (?P<sif>.+?\.sif): .*?(?P<why>[^:]+)$")


@dataclass(frozen=True, kw_only=True)
class Container:
    """An image and what a location adds.

    `roots` are the directories in which the inputs lie: links lead there, so they keep their place, and cannot be
    written. `program` is Apptainer, and `options` are those of the location.
    """

    sif: Path
    roots: tuple[Path, ...]
    program: str = "apptainer"
    options: tuple[str, ...] = ()


def linked_roots(root: Path, targets: Iterable[Path]) -> tuple[Path, ...]:
    """Return a root and, of inputs below it that lie elsewhere by a link, the directories that such links lead to."""
    real_root, elsewhere = os.path.realpath(root), dict[Path, None]()
    for target in targets:
        found = os.path.realpath(target)
        if not Path(found).is_relative_to(real_root):
            elsewhere[_before_what_is_alike(Path(found), target)] = None
    return (root, *elsewhere)


def _before_what_is_alike(real: Path, named: Path) -> Path:
    """What is left of a path without the end that it has in common with another: where a link on the way leads."""
    alike = 0
    for one, other in zip(reversed(real.parts), reversed(named.parts), strict=False):
        if one != other:
            break
        alike += 1
    return Path(*real.parts[: max(1, len(real.parts) - alike)])


def container_command(
    container: Container, layout: AttemptLayout, command: Sequence[str], *, is_final: bool
) -> tuple[str, ...]:
    """Return the argument list that runs a command in an image, which sees of this host what the contract says."""
    temporary = [(layout.temporary, Path(place), True) for place in _TEMPORARY]
    inputs = [(root, root, False) for root in container.roots]
    ours = [
        (layout.input, INSIDE.input, False),
        (layout.config, INSIDE.config, False),
        (layout.workspace, INSIDE.workspace, True),
        *([(layout.output, INSIDE.output, True)] if is_final else []),  # others write into their workspace
        (layout.logs, INSIDE.logs, True),
    ]
    home = layout.home.relative_to(layout.workspace)  # where the job starts: a colon before it would end the path
    mounts = [_mount(*one) for one in (*temporary, *inputs, *ours)]  # a location may lie below /tmp
    return (
        *(container.program, "--quiet", "--nocolor", "exec", "--containall", "--no-eval"),
        *("--home", f"{home}:{INSIDE.home}", "--pwd", str(INSIDE.workspace)),
        *container.options,
        *(word for mount in mounts for word in ("--mount", mount)),
        str(container.sif),
        *command,
    )


def container_environment(layout: AttemptLayout, inner: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of Apptainer itself, which gives the software the `inner` one."""
    own = {
        "PATH": SYSTEM_PATH,
        "HOME": str(layout.home),
        "TMPDIR": str(layout.temporary),
        "LANG": "C.UTF-8",
    }
    given = {name: value for name, value in inner.items() if name != "HOME"}  # which Apptainer gives itself
    return own | {f"{INNER_PREFIX}{name}": value for name, value in given.items()}


def _mount(source: Path, destination: Path, is_writable: bool) -> str:  # noqa: FBT001 one of three words of a mount
    """One value of `--mount`: fields as in CSV, so that any path is one."""
    row = ["type=bind", f"source={source}", f"destination={destination}", *([] if is_writable else ["ro"])]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(row)
    return line.getvalue()


def container_trouble(exit_code: int | None, log_tail: str) -> tuple[FailureClass, str] | None:
    """Return why Apptainer could not start the software of a job, and of what kind that is; None where it could.

    It is so where nothing stands in the log but what Apptainer said: software that ran ends with any code.
    """
    lines = [line.rstrip() for line in _COLOUR.sub("", log_tail).splitlines() if line.strip()]
    if not lines:
        return None
    absent = _ABSENT.fullmatch(lines[-1])
    if exit_code in _NOT_RUN and absent:
        cause = f"Apptainer cannot be run where the job ran: {absent['why']}; install it on every host of the location"
        return FailureClass.CONFIGURATION, f"{cause}, or say in its `apptainer` where it is"
    if exit_code not in _OWN_CODES:
        return None
    if lines[-1].startswith(_MISUSED):
        return FailureClass.CONFIGURATION, f"Apptainer could not start the software: {lines[-1]}"
    said = [_MESSAGE.fullmatch(line) for line in lines]
    last = said[-1]
    if last is None or None in said or last["level"].split(":")[0].strip() not in {"FATAL", "ERROR"}:
        return None
    return _meaning(last["text"])


def _meaning(text: str) -> tuple[FailureClass, str]:
    """What is wrong with the version is told at once; what may be the host, or its disk, is tried again."""
    wrong = _WRONG_IMAGE.search(text)
    if wrong:
        cause = (
            f"its image cannot be used where the job ran: {wrong['why']}; release one that was built for these hosts"
        )
        return FailureClass.CONFIGURATION, cause
    if _NOT_IN_IMAGE.search(text):
        cause = f"Apptainer could not start the software: {text}; mend the version's `command`, or its image"
        return FailureClass.CONFIGURATION, cause
    unreadable = _UNREADABLE.search(text)
    if unreadable:
        where = "the cache of images has to be on a disk that every host of the location sees"
        cause = (
            f"its image {unreadable['sif']} cannot be opened where the job ran: {unreadable['why'].strip()}; {where}"
        )
        return FailureClass.INFRASTRUCTURE, cause
    return FailureClass.INFRASTRUCTURE, f"Apptainer could not start the software: {text}"
