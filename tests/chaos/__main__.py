"""`make chaos`: everything but the supervisor is killed again and again, and every chain is made once."""

import argparse
import json
import secrets
import sys
from datetime import timedelta

from tests.chaos.play import Plan, play


def main() -> int:
    """Play, and say what came of it; 1 where something is wrong."""
    options = argparse.ArgumentParser(prog="make chaos ARGS=…", description=__doc__)
    options.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the order of the kills")
    options.add_argument("--chains", type=int, default=300)
    options.add_argument("--kills", type=int, default=1000, help="at most")
    options.add_argument("--each", type=int, default=3, help="how often each kind is killed")
    options.add_argument("--every", type=float, default=5, help="seconds between two kills")
    chosen = options.parse_args()
    print(f"seed {chosen.seed}: --seed {chosen.seed} kills in the same order again")
    every = timedelta(seconds=chosen.every)
    plan = Plan(seed=chosen.seed, chains=chosen.chains, kills=chosen.kills, each=chosen.each, every=every)
    outcome = play(plan, lambda line: print(line, flush=True))
    print("\n".join(["", *outcome.table(), ""]))
    told = f"{outcome.attempts} attempts, {outcome.lost} jobs killed with their software, {outcome.seconds:.0f} s"
    print(f"{len(outcome.kills)} kills, {told}")
    print("\n".join(outcome.wrong) or "every chain was made once, and nothing is left")
    print(json.dumps({"bench": "chaos", "figures": {"recovery_s": round(outcome.recovery_s, 2)}}))
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
