"""What a benchmark prints, at a size at which its figures say nothing."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("name", "size", "figures"),
    [
        ("rules", 2000, {"preview_1m_ms", "preview_exact_s", "cone_ms"}),
        ("gaps", 100, {"gap_1m_s", "gap_1m_ratio", "gap_1m_3steps_s", "gap_1m_rebuild_s", "slope", "rss_mb"}),
        ("lineage", 20_000, {"lineage_ms", "ancestors_ms", "descendants_ms", "rss_mb"}),
        ("incremental", 2000, {"changed_1_ms", "changed_1000_ms", "rss_mb"}),
        ("plan", 100, {"plan_100k_s", "create_100k_s", "rss_mb"}),
        ("collect", 20, {"products_per_s", "large_run_products_per_s", "inputs_per_s"}),
    ],
)
def test_the_last_line_of_a_benchmark_is_json_with_its_figures(name: str, size: int, figures: set[str]) -> None:
    done = bench(name, "--size", str(size))
    assert done.returncode == 0, done.stderr
    *told, last = done.stdout.splitlines()
    found = json.loads(last)
    assert list(found) == ["bench", "cpu", "python", "postgresql", "figures"]
    assert (found["bench"], found["python"]) == (name, platform.python_version())
    assert figures <= found["figures"].keys()
    assert all(value > 0 for value in found["figures"].values())
    assert any(line.startswith(f"{min(figures)} ") for line in told)


def test_a_benchmark_that_does_not_exist_is_refused() -> None:
    done = bench("rulse")
    assert done.returncode == 2
    assert "No such command 'rulse'" in done.stderr
