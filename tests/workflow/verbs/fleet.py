"""Many of our processes at once, forked from one that has imported the code, as the embedded stack does it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from ccat.cli.processes import PROCESSES
from ccat.stack.forked import Life, fork


@dataclass(frozen=True)
class Member:
    """One process: the name of its command, the variables that it has, and where its log goes."""

    name: str
    environment: Mapping[str, str]
    log: str

    def has_started(self) -> bool:
        log = Path(self.log)
        return log.exists() and any(f"{kind} started" in log.read_text() for kind in ("manager", "worker"))


@contextmanager
def fleet(members: Sequence[Member]) -> Iterator[None]:
    """Let them run inside the `with` block; each has to live until its end, and to end well when asked to."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin
        parent.stdin.write(json.dumps([asdict(one) for one in members]) + "\n")
        parent.stdin.flush()
        yield
        said, _ = parent.communicate()
    codes = json.loads(said)
    assert set(codes) == {0}, [Path(one.log).read_text() for one, code in zip(members, codes, strict=True) if code]


def main() -> None:
    import_module("ccat.processes")
    members = [Member(**one) for one in json.loads(sys.stdin.readline())]
    with ExitStack() as logs:
        children = [
            fork(
                Life(
                    call=PROCESSES[one.name],
                    title=one.name,
                    directory=Path(one.log).parent,
                    environment=one.environment,
                    output=logs.enter_context(Path(one.log).open("w")),
                    set_up=lambda: None,
                )
            )
            for one in members
        ]
        sys.stdin.read()  # until whoever asked for them closes it, or is gone
        died = [child.poll() is not None for child in children]
        for child in children:
            child.send_signal(signal.SIGTERM)
        codes = [child.wait(15) or int(had_died) for child, had_died in zip(children, died, strict=True)]
    sys.stdout.write(json.dumps(codes))


if __name__ == "__main__":
    main()
