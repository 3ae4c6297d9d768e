"""What turns out to be wrong is withdrawn with all that was made from it, and reinstated if it was right."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from ccat.cli.descent import KindOf, Name, tell_levels
from ccat.cli.errors import reported
from ccat.cli.output import AsJson, Before, Limit, print_json, print_table
from ccat.wiring import person, transaction
from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.descent import Level, affected
from ccat_ops_db.queries.roots import Kind, find_one
from ccat_ops_db.queries.withdrawals import list_withdrawals
from ccat_ops_db.verbs.reasons import require_reason
from ccat_ops_db.verbs.withdrawing import Reinstated, Withdrawn, reinstate, withdraw

Because = Annotated[str, typer.Option(help="Why, for those who read it later.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be invalid, and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Withdraw it however much was made from it.")]
AskAbove = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="Ask before marking more than so many products; without a terminal, refuse."),
]
_COLUMNS: Final = ["id", "what", "because", "by", "at", "products", "reinstated_at", "reinstated_by"]


class TooManyProducts(CcatError):
    """A withdrawal would mark more products than somebody may have thought of."""

    code = "too_many_products"

    def __init__(self, what: str, products: int, *, most: int) -> None:
        number = counted(products, "product", "products")
        super().__init__(
            f"Withdrawing {what} would make {number} invalid, more than {most:,}. `--dry-run` shows which; `--yes` "
            "withdraws it all the same. Nothing was withdrawn."
        )


@dataclass(frozen=True)
class _Affected:
    """What a withdrawal would mark."""

    what: str
    levels: Sequence[Level]

    @property
    def products(self) -> int:
        return sum(one.valid for one in self.levels)


def withdraw_it(
    kind: KindOf,
    name: Name,
    *,
    because: Because,
    dry_run: DryRun = False,
    yes: Yes = False,
    ask_above: AskAbove = 100,
    json: AsJson = False,
) -> None:
    """Declare something invalid, and all that was made from it; what is wanted of that is made again from the rest."""
    with reported(as_json=json):
        require_reason(because, outcome="Nothing was withdrawn.")
        found = _look(kind, name)
        if dry_run:
            print_json(found) if json else tell_levels(f"would be invalid with {found.what}", found.levels)
            return
        _agree(found, most=ask_above, is_agreed=yes, can_ask=sys.stdin.isatty() and not json)
        done = _withdraw(kind, name, because=because)
    print_json(done) if json else typer.echo("\n".join([_told(done), *_to_do(kind)]))


def reinstate_it(kind: KindOf, name: Name, *, json: AsJson = False) -> None:
    """Take a withdrawal back; what was made from it counts again, unless it is older, or withdrawn besides."""
    now = datetime.now(UTC)
    with reported(as_json=json), transaction("reinstate") as session:
        done = reinstate(session, find_one(session, kind, name), now=now, by=person())
    print_json(done) if json else typer.echo(_told_back(done))


def withdrawals(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were taken back.")] = False,
    limit: Limit = 50,
    before: Before = None,
    json: AsJson = False,
) -> None:
    """List what was withdrawn, by whom and why, the newest first."""
    with reported(as_json=json), transaction("withdrawals") as session:
        found = list_withdrawals(session, everything=everything, limit=limit, before=before)
    if json:
        print_json(found)
    else:
        rows = [[getattr(one, name) for name in _COLUMNS] for one in found]
        print_table(counted(len(found), "withdrawal", "withdrawals"), _COLUMNS, rows)


def _look(kind: Kind, name: str) -> _Affected:
    with transaction("withdraw") as session:
        root = find_one(session, kind, name)
        return _Affected(root.label, affected(session, root))


def _agree(found: _Affected, *, most: int, is_agreed: bool, can_ask: bool) -> None:
    if is_agreed or found.products <= most:
        return
    if not can_ask:
        raise TooManyProducts(found.what, found.products, most=most)
    tell_levels(f"would be invalid with {found.what}", found.levels)
    typer.confirm(f"Withdraw {found.what}, and with it {found.products:,} products?", abort=True)


def _withdraw(kind: Kind, name: str, *, because: str) -> Withdrawn:
    now = datetime.now(UTC)
    with transaction("withdraw") as session:
        return withdraw(session, find_one(session, kind, name), because=because, now=now, by=person())


def _told(done: Withdrawn) -> str:
    if not done.is_new:
        return f"{done.what} was withdrawn already; the first reason stays"
    runs = f"; {counted(len(done.runs), 'run', 'runs')} under way cancelled" if done.runs else ""
    return f"{done.what} is withdrawn: {counted(done.products, 'product', 'products')} invalid{runs}"


def _to_do(kind: Kind) -> Sequence[str]:
    """What is left to do by hand."""
    if kind is not Kind.VERSION:
        return ()
    return (
        "write `state: withdrawn` for it in its file of definitions, or `ccat apply` refuses that file from now on",
    )


def _told_back(done: Reinstated) -> str:
    if not done.was_withdrawn:
        return f"{done.what} was not withdrawn"
    held = f"; {done.still_invalid:,} stay invalid for another withdrawal" if done.still_invalid else ""
    return f"{done.what} is reinstated: {counted(done.products, 'product', 'products')} valid again{held}"
