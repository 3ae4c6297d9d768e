"""A toy instrument team: software of a few lines of shell, installed as a distribution of its own."""

import hashlib
from base64 import urlsafe_b64encode
from pathlib import Path

import yaml

MODULE = b'"""Nothing but a name."""\n'
METADATA = b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n"

COPY = 'cat "$WORKFLOW_MANIFEST" > "$WORKFLOW_OUTPUT_DIR/manifest-seen.json"'


def install(environment: Path) -> None:
    """Lay the distribution out as an installer would, with its RECORD."""
    packages = environment / "lib" / "python3.11" / "site-packages"
    information = packages / "toy-1.0.dist-info"
    information.mkdir(parents=True)
    files = {"toy.py": MODULE, "toy-1.0.dist-info/METADATA": METADATA}
    for name, content in files.items():
        (packages / name).write_bytes(content)
    rows = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    (information / "RECORD").write_text("\n".join([*rows, "toy-1.0.dist-info/RECORD,,"]) + "\n")


def _digest(content: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def write_definitions(file: Path, scripts: dict[str, str], steps: list[dict[str, object]], *, pipeline: str) -> None:
    """One pipeline over everything that CHAI observed, each program a line of shell."""
    software = [{"name": name, "versions": [_version(script)]} for name, script in scripts.items()]
    document = {
        "sources": [{"name": "Orion KL", "ra_deg": 83.8, "dec_deg": -5.4}],
        "observing_programs": [
            {
                "short_name": "toy",
                "observations": [{"name": "orion", "source": "Orion KL", "obs_mode": "OTF"}],
            }
        ],
        "software": software,
        "groupings": [
            {"name": "chai", "rules": [{"table": "Instrument", "column": "name", "operator": "eq", "value": "CHAI"}]}
        ],
        "pipelines": [{"name": pipeline, "grouping": "chai", "location": "cologne/ramses", "steps": steps}],
    }
    file.write_text(yaml.safe_dump(document, sort_keys=False))


def _version(script: str) -> dict[str, object]:
    return {
        "version": "1.0",
        "series": "1",
        "command": ["sh", "-c", script],
        "environment": "toy-env",
        "distribution": "toy",
    }
