"""The README's commands do what it says."""

import json
import os
import re
import subprocess
from pathlib import Path

from harness import BIN

README = Path(__file__).parents[1] / "README.md"


def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL)
    by_hand, own_step, _tests = blocks
    environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    script = f"set -eu\n{by_hand}\n{own_step}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "output" / "calibrated.fits").is_file()
    hot = json.loads((tmp_path / "next" / "output" / "qa" / "metrics.json").read_text())["hot_pixels"]
    assert 0 <= hot <= 64
