"""`ccat backup` and `ccat restore`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ccat.backup.databases import existing_database
from ccat.backup.making import Made, make_backup
from ccat.backup.manifest import Manifest
from ccat.backup.verifying import verify as verify_it
from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.stack.errors import command_for
from ccat.wiring import person
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.plan.spaces import size

if TYPE_CHECKING:
    from ccat.backup.restoring import Restored

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The embedded stack there, whatever database the settings name."),
]
Place = Annotated[Path, typer.Argument(metavar="PLACE", help="A directory that `ccat backup` made.")]
Moves = Annotated[
    list[str] | None,
    typer.Option(
        "--moved", metavar="OLD=NEW", help="Locations below directory OLD, or s3://BUCKET/PREFIX, lie below NEW."
    ),
]


class _OrMake(TyperGroup):
    """A group whose name alone means its first command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args[:1] and args[0] in {*self.commands, "--help"}
        return super().parse_args(ctx, args if named else ["make", *args])


app = typer.Typer(cls=_OrMake, help="Back up the operations database and all definitions; `ccat backup [DIRECTORY]`.")


@app.command()
def make(
    directory: Annotated[
        Path, typer.Argument(envvar="CCAT_BACKUP_DIR", help="Where backups lie; each is a directory in it.")
    ] = Path("backups"),
    *,
    keep: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Then remove older ones of this installation there, so that N are left."),
    ] = None,
    data_dir: DataDir = None,
    json: AsJson = False,
) -> None:
    """Make a backup and verify it; what `ccat backup` alone means."""
    with reported(as_json=json), existing_database(data_dir) as database:
        made = make_backup(database, directory, keep=keep)
    print_json(_record(made)) if json else typer.echo(_sentence(made))


@app.command()
def verify(place: Place, *, json: AsJson = False) -> None:
    """Read all of a backup, compare the digests, and see whether PostgreSQL can read the dump."""
    with reported(as_json=json):
        manifest = verify_it(place)
    print_json(manifest.model_dump(mode="json")) if json else typer.echo(f"{place} is whole: {_of(manifest)}.")


def restore(place: Place, *, data_dir: DataDir = None, moved: Moves = None, json: AsJson = False) -> None:
    """Make an installation of a backup, in an empty database: one of its own, with everything paused."""
    from ccat.backup.restoring import restore as restore_it  # noqa: PLC0415 - Alembic, which no other command needs

    moves = _moves(moved or [])
    with reported(as_json=json):
        restored = restore_it(place, data_dir, moves=moves, by=person())
    print_json(_outcome(restored)) if json else typer.echo(_told(restored, data_dir))


def _moves(written: Sequence[str]) -> dict[str, str]:
    pairs = [one.partition("=")[::2] for one in written]
    for old, new in pairs:
        if not any(old.startswith(start) and new.startswith(start) for start in ("/", "s3://")):
            problem = "does not name two absolute directories, nor two places s3://BUCKET/PREFIX"
            raise typer.BadParameter(f"{old}={new} {problem}", param_hint="--moved")
    return dict(pairs)


def _record(made: Made) -> dict[str, Any]:
    removed = [str(path) for path in made.removed]
    later = [str(path) for path in made.dated_later]
    manifest = made.manifest.model_dump(mode="json")
    return {"path": str(made.path), "removed": removed, "dated_later": later, "manifest": manifest}


def _sentence(made: Made) -> str:
    removed = f" Removed {counted(len(made.removed), 'older one', 'older ones')}." if made.removed else ""
    return f"Made and verified {made.path}: {_of(made.manifest)}.{removed}{_warning(made.dated_later)}"


def _warning(later: Sequence[Path]) -> str:
    if not later:
        return ""
    are = counted(len(later), "backup there is", "backups there are")
    names = ", ".join(path.name for path in later)
    return f"\n{are} dated later, so that a clock was wrong: {names}. `--keep` neither counts nor removes such."


def _of(manifest: Manifest) -> str:
    runs = counted(manifest.rows["executed_reduction_step"], "run", "runs")
    packages = counted(manifest.rows["raw_data_package"], "raw package", "raw packages")
    whole = size(sum(part.size_bytes for part in manifest.parts.values()))
    return (
        f"installation {manifest.installation_id} at {manifest.taken_at:%F %T} UTC, schema {manifest.schema_revision}, "
        f"{packages}, {runs}, {whole}"
    )


def _outcome(restored: "Restored") -> dict[str, Any]:
    return {
        "database": restored.database,
        "schema_revision": restored.schema_revision,
        "installation_id": str(restored.installation_id),
        "relocated": restored.relocated,
        "kept": dict(restored.kept),
        "unread_copies": restored.unread,
        "ended": restored.disowned,
        "manifest": restored.manifest.model_dump(mode="json"),
    }


def _told(restored: "Restored", data_dir: Path | None) -> str:
    old, ended = restored.manifest.installation_id, restored.disowned
    jobs = counted(len(ended.jobs), "job", "jobs")
    start = f"start it with `{command_for('up', data_dir)}`" if data_dir else "start its processes"
    lines = [
        f"Restored into {restored.database}: {_of(restored.manifest)}.",
        f"This is installation {restored.installation_id} now, and everything is paused.",
        f"{counted(ended.runs, 'run', 'runs')} of {old} ended here, and what is still wanted of them is made anew.",
        f"{jobs} of these may still run, with names that begin with ccat-{old.hex[:8]}-: end them yourself.",
        *([f"Locations that lie elsewhere now: {', '.join(restored.relocated)}."] if restored.relocated else []),
        *([f"Locations that are where they were: {_listed(restored.kept)}."] if restored.kept else []),
        *([_unread(restored.unread)] if restored.unread else []),
        *([f"{counted(ended.trials, 'trial', 'trials')} ended for good."] if ended.trials else []),
        f"Bring its files, {start}, and let it go on: `ccat resume --all`.",
    ]
    return "\n".join(lines)


def _listed(places: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({place})" for name, place in places.items())


def _unread(copies: int) -> str:
    counts = counted(copies, "archive copy counts", "archive copies count")
    return f"{counts} again once read here, from `ccat resume --all` on: nothing that relies on them goes before."
