"""`make chaos`: whatever is killed, every chain is made once; with --transfer, every package is archived whole."""

import argparse
import json
import secrets
import sys
from datetime import timedelta

from ccat_ops_db.states import Mover
from tests.chaos import play, transfer


def main() -> int:
    """Play, and say what came of it; 1 where something is wrong."""
    options = argparse.ArgumentParser(prog="make chaos ARGS=…", description=__doc__)
    options.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the order of the kills")
    options.add_argument("--chains", type=int, default=300)
    options.add_argument("--kills", type=int, help="at most")
    options.add_argument("--each", type=int, default=3, help="how often each kind is killed")
    options.add_argument("--every", type=float, help="seconds between two kills")
    options.add_argument("--transfer", action="store_true", help="packages between two sites instead of chains")
    options.add_argument("--packages", type=int, default=200, help="with --transfer")
    options.add_argument("--flips", type=int, default=40, help="with --transfer: bits that change")
    options.add_argument("--rsync", action="store_true", help="with --transfer: rsync brings them, instead of a copy")
    options.add_argument("--patience", type=float, default=1200, help="with --transfer: seconds after the last kill")
    chosen = options.parse_args()
    print(f"seed {chosen.seed}: --seed {chosen.seed} kills in the same order again")
    return cross(chosen) if chosen.transfer else chain(chosen)


def chain(chosen: argparse.Namespace) -> int:
    """Everything but the supervisor is killed again and again."""
    every, kills = timedelta(seconds=chosen.every or 5), chosen.kills or 1000
    plan = play.Plan(seed=chosen.seed, chains=chosen.chains, kills=kills, each=chosen.each, every=every)
    outcome = play.play(plan, say)
    print("\n".join(["", *outcome.table(), ""]))
    told = f"{outcome.attempts} attempts, {outcome.lost} jobs killed with their software, {outcome.seconds:.0f} s"
    print(f"{len(outcome.kills)} kills, {told}")
    print("\n".join(outcome.wrong) or "every chain was made once, and nothing is left")
    print(json.dumps({"bench": "chaos", "figures": {"recovery_s": round(outcome.recovery_s, 2)}}))
    return 1 if outcome.wrong else 0


def cross(chosen: argparse.Namespace) -> int:
    """Managers and workers of data transfer are killed again and again, and bits flip in copies."""
    every, kills = timedelta(seconds=chosen.every or 2), chosen.kills or 60
    plan = transfer.Plan(
        seed=chosen.seed,
        packages=chosen.packages,
        kills=kills,
        every=every,
        flips=chosen.flips,
        mover=Mover.RSYNC if chosen.rsync else Mover.COPY,
        patience=timedelta(seconds=chosen.patience),
    )
    outcome = transfer.play_alone(plan, say)
    print("\n".join(["", *outcome.table(), ""]))
    done = f"{outcome.packages} packages in {outcome.seconds:.0f} s"
    print(f"{done}, {outcome.kills.total()} kills, {outcome.flips.total()} bits flipped")
    print("\n".join(outcome.wrong) or "every package is in both archives, whole, and staged, and nothing else is left")
    return 1 if outcome.wrong else 0


def say(line: str) -> None:
    """Tell it now."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
