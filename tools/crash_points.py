"""Writes `docs/crash-points.md`: where a process may be told to die, which tests make it do everywhere.

`python -m tools.crash_points` writes the page, `python -m tools.crash_points --list` prints the points.
"""

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from ccat.crashing import VARIABLE, Place, places, points

PAGE = Path("docs/crash-points.md")

_EXAMPLE = next(point for point in points() if point.endswith(":backend.submit:after"))

INTRODUCTION = f"""# Crash points

<!-- Written by `python -m tools.crash_points`; a test compares. -->

Any process may die at any moment, and nothing is lost or done twice. To show it, a process can be told where: with
`{VARIABLE}=POINT` in its environment it kills itself with SIGKILL when it comes to that point, with `POINT#3` when it
comes there for the third time. A point that does not exist stops it with one line. Without the variable nothing of this
is loaded.

    {VARIABLE}={_EXAMPLE} ccat celery-worker

The list is generated from the code: each commit and each call outside of the process, `before` and `after`. It has the
workflow-manager and the sending of its messages, which start, follow and end runs; the alerts and the signs of life by
which services are missed; the look at what is free on disks; and the one place, `ccat.wiring.transaction`, in which
every `ccat` command commits what people ask for. A command with several transactions, which looks first and then acts,
comes there several times: `#2`. Data transfer is not in it, nor are `opsdb_init`, `opsdb_migrate`, the embedded stack,
and the questions of the Kubernetes backend to its API.

`tests/workflow/verbs/crashes`, and of clusters `tests/workflow/hpc/test_slurm.py`, let processes die at every one of
them, and fail where none comes by. What is so when they are started again:

- A run is made once.
- An alert is told at least once. It is told twice only where a process dies when it has told it, or one of two
  channels, and that is not recorded yet: nobody knows then whether anybody heard it.
- What is free on a disk is known after the next look, and whoever waits for room there is woken.
- What somebody asks for is there whole, with its reason, or not at all. Whoever does not know which says it again: what
  is there already is not done a second time. Trials are, and what is forced if the first of it has started meanwhile;
  `ccat runs` lists both.

| what | dead before it | dead after it |
|---|---|---|
"""

FATES = {
    "commit": (
        "nothing was written: the next look finds what was to be done as it was, and what was asked for is asked again",
        "what was written is found by the next look; messages may be lost, and are sent again when the lease is over",
    ),
    "mailbox.deliver": (
        "the message is lost: its work is leased, and told again when the lease is over",
        "one of several messages has left: the others are told again",
    ),
    "backend.submit": (
        "the attempt and its job's name are committed: the backend does not know the name, and the job is handed in",
        "the backend knows the name: the job is adopted, not handed in again",
    ),
    "backend.submit_bundle": (
        "the row of the bundle is committed: the backend knows none of its names, and the jobs are handed in again",
        "the backend knows the names: the jobs are adopted, not handed in again",
    ),
    "backend.find": ("only a question: it is asked again", "as before it"),
    "backend.observe": ("only a question: the next round asks it", "as before it"),
    "backend.logs": ("only a question: it is asked again", "as before it"),
    "backend.cancel": ("the job is found superfluous again, or ends and is not collected", "the cancelled job is seen"),
    "posix_spawn": (
        "the job holds its slot and has not started: it is started when that is overdue",
        "the job lives without us; its marks say so",
    ),
    "subprocess.run": (
        "Slurm was asked nothing: its next command finds everything as it was",
        "Slurm may have taken a job whose number nobody noted: it is found by its name, and adopted",
    ),
    "subprocess.Popen": (
        "nobody was told: the next look tells it",
        "the command runs with its text in the environment and nothing on its standard input: the next look tells it",
    ),
    "process.communicate": ("as after the start of the command", "people were told: the next look tells it again"),
    "build_opener.open": ("nobody was told: the next look tells it", "people were told: the next look tells it again"),
    "disk_usage": ("only a question: the next look asks it", "as before it"),
    "redis": (
        "only hints, slots and signs of life: restored from the files of the jobs, or shown again",
        "as before it; who had not said that it ends is missed",
    ),
    "pipe": ("only hints and slots: restored from the files of the jobs", "as before it"),
}
ON_DISK = (
    "the file or directory is as it was: whoever repeats the whole finds that state and goes on",
    "it is done, and repeating it changes nothing; a draft is left to be removed later",
)


def page() -> str:
    """The whole page."""
    rows = [f"| {kinds(kind)} | {before} | {after} |" for kind, (before, after) in [*FATES.items(), ("", ON_DISK)]]
    return "\n".join([INTRODUCTION + "\n".join(rows), *sections(), ""])


def kinds(kind: str) -> str:
    """The name of a kind of call; the last one is any other."""
    return f"`{kind}`" if kind else ", ".join(f"`{name}`" for name in sorted(on_disk()))


def on_disk() -> set[str]:
    """What is done to files and processes."""
    names = {place.what.partition(":")[0] for place in places()}
    return {name for name in names if name not in FATES and name.partition(".")[0] not in FATES}


def sections() -> Iterator[str]:
    """One table for each module."""
    for module, found in groupby(places(), key=lambda place: place.module):
        yield f"\n## `{module}`\n\n| where | what | the function |\n|---|---|---|"
        yield from (row(place) for place in found)


def row(place: Place) -> str:
    """One line: two points."""
    return f"| `{place.function}` | `{place.what}` | {place.told} |"


def main(options: list[str]) -> None:
    """Write the page, or print the points."""
    if "--list" in options:
        print("\n".join(points()))
    else:
        PAGE.write_text(page())


if __name__ == "__main__":
    main(sys.argv[1:])
