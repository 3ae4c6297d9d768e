"""What a killed supervisor leaves behind."""

from datetime import timedelta

from ccat.stack import postgresql, redis
from ccat.stack.directory import StackDirectory
from ccat.stack.processes import end, forked_in, marked

MARK = "CCAT_STACK"
"""Environment variable of every program that a stack runs: the data directory it belongs to."""
_PATIENCE = timedelta(seconds=5)


def end_leftovers(directory: StackDirectory) -> int:
    """End what still belongs to a directory, and say how many processes that were. The caller holds the directory."""
    found = {
        *marked(MARK, str(directory.root)),
        *forked_in(directory.state.parent),
        *postgresql.leftovers(directory.postgresql),
        *redis.leftovers(directory.redis),
    }
    end(found, within=_PATIENCE)
    return len(found)
