import json as jsons
import re
import shlex
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from ccat.cli.errors import reported
from ccat.cli.output import LARGEST_ID, AsJson, labels, print_json, print_table
from ccat.cli.runs import RunId
from ccat.wiring import transaction
from ccat_ops_db.plan.difference import Change, Difference, Kind, Part, Path, Snapshot, Topic, difference
from ccat_ops_db.queries.snapshots import snapshot

Other = Annotated[int, typer.Argument(metavar="RUN", min=1, max=LARGEST_ID, help="Number of the run to compare with.")]

MOST_SHOWN: Final = 20
"""Of each kind of change in a topic; JSON has them all."""
_WIDTH: Final = 70
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_SIGNS: Final = {Kind.CHANGED: "~", Kind.REMOVED: "-", Kind.ADDED: "+"}
_COUNTED: Final = set(Topic) - {Topic.PLACE, Topic.SOFTWARE, Topic.DEFINITION, Topic.EXECUTION}


def diff(run: RunId, other: Other, *, json: AsJson = False) -> None:
    """Say what differs between two runs: recipe, inputs, execution and products. Name the earlier one first."""
    with reported(as_json=json), transaction("diff") as session:
        before, after = snapshot(session, run), snapshot(session, other)
        found = difference(before, after)
    if json:
        print_json(found)
    else:
        _tell(before, after, found)


def _tell(before: Snapshot, after: Snapshot, found: Difference) -> None:
    columns = ["run", "pipeline", "step", "sub_group", "version", "config", "status", "finished_at"]
    print_table("compared", columns, [_cells(before), _cells(after)])
    typer.echo(f"\n{found.summary}")
    for topic, part in found.parts.items():
        if part is not None and part.changes:
            typer.echo("\n" + "\n".join(_topic(topic, part, found)))
    if found.upstream:
        typer.echo(
            "\nwhy inputs changed: `ccat diff {} {}` compares two runs that made one of them".format(*found.upstream)
        )
    for title, topics in (("the same", _same(found)), ("not compared", _not_compared(found))):
        if topics:
            typer.echo(f"\n{title}: {', '.join(topics)}")


def _cells(run: Snapshot) -> list[object]:
    config = run.config and run.config.name + (f", revision {run.config.revision}" if run.config.revision else "")
    version = f"{run.software.name} {run.software.version}"
    return [run.id, run.pipeline, run.step, labels(run.sub_group), version, config, run.status, run.finished_at]


def _same(found: Difference) -> list[str]:
    return [
        f"{_label(topic)} ({part.same})" if topic in _COUNTED else _label(topic)
        for topic, part in found.parts.items()
        if part is not None and part.same and not part.changes
    ]


def _not_compared(found: Difference) -> list[str]:
    return [_label(topic) for topic, part in found.parts.items() if part is None]


def _label(topic: Topic) -> str:
    return topic.replace("_", " ")


def _topic(topic: Topic, part: Part, found: Difference) -> Iterator[str]:
    """A heading with numbers, and the changes below it."""
    by_kind = {kind: [one for one in part.changes if one.kind is kind] for kind in Kind}
    words = {
        Kind.CHANGED: "changed",
        Kind.REMOVED: f"only in run {found.before}",
        Kind.ADDED: f"only in run {found.after}",
    }
    numbers = [f"{len(changes)} {words[kind]}" for kind, changes in by_kind.items() if changes]
    yield f"{_label(topic)}: {', '.join([*numbers, *([f'{part.same} the same'] if part.same else [])])}"
    width = max(len(_name(topic, one.path)) for changes in by_kind.values() for one in changes[:MOST_SHOWN])
    for kind, changes in by_kind.items():
        for one in changes[:MOST_SHOWN]:
            yield f"  {_SIGNS[kind]} {_name(topic, one.path):{width}}  {_values(topic, one)}"
        if changes[MOST_SHOWN:]:
            yield f"    and {len(changes) - MOST_SHOWN} more {words[kind]}"


def _name(topic: Topic, path: Path) -> str:
    if topic is Topic.PARAMETERS:
        return "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path).removeprefix(".")
    head, *rest = map(str, path)
    return f"{head} {'/'.join(rest)}".rstrip()


def _values(topic: Topic, one: Change) -> str:
    if one.kind is not Kind.CHANGED:
        return _cut(_text(one.new if one.kind is Kind.ADDED else one.old))
    is_metric = topic is Topic.METRICS and one.old
    return _pair(one.old, one.new) + (f" ({one.new / one.old - 1:+.2%})" if is_metric else "")


def _pair(old: Any, new: Any) -> str:
    """Both values, where they are long from shortly before they begin to differ."""
    texts = [_text(old), _text(new)]
    if texts[0] == texts[1] and old != new:  # a number and the same in words, or other spaces
        texts = [jsons.dumps(old), jsons.dumps(new)]
    differ = (place for place, (a, b) in enumerate(zip(*texts, strict=False)) if a != b)
    start = next(differ, min(map(len, texts)))
    return " → ".join(_cut(text, start) for text in texts)


def _cut(text: str, start: int = 0) -> str:
    begin = max(0, min(start - _WIDTH // 3, len(text) - _WIDTH))
    end = begin + _WIDTH
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if text[end:] else ''}"


def _text(value: Any) -> str:
    if value in (None, [], {}):
        return "none"
    if isinstance(value, list):
        value = shlex.join(value)
    text = value if isinstance(value, str) and value else jsons.dumps(value)
    return _DIGEST.sub(lambda found: found[0][: len("sha256:") + 12], " ".join(text.split()))
