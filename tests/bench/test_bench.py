"""What a benchmark prints, at a size at which its figures say nothing."""

import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_the_last_line_of_the_rules_benchmark_is_json_with_its_figures() -> None:
    done = bench("rules", "--size", "2000")
    assert done.returncode == 0, done.stderr
    *told, last = done.stdout.splitlines()
    found = json.loads(last)
    assert list(found) == ["bench", "cpu", "python", "postgresql", "figures"]
    assert (found["bench"], found["python"]) == ("rules", platform.python_version())
    assert {"preview_1m_ms", "preview_exact_s", "cone_ms"} <= found["figures"].keys()
    assert all(value > 0 for value in found["figures"].values())
    assert told[0] == "archiving 2000 packages"
    assert any(line.startswith("cone_ms ") for line in told)


def test_a_benchmark_that_does_not_exist_is_refused() -> None:
    done = bench("rulse")
    assert done.returncode == 2
    assert "No such command 'rulse'" in done.stderr
