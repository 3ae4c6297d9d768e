"""Reduction software as small as can be: an environment with one installed distribution, and scripts in its `bin/`."""

import hashlib
from base64 import urlsafe_b64encode
from pathlib import Path


def install(environment: Path, *, version: str = "1.0", code: str = "answer = 42\n", name: str = "toy") -> Path:
    """An environment that holds this version of a distribution, and no other; what it held before is replaced."""
    packages = environment / "lib" / "python3.11" / "site-packages"
    for old in packages.glob(f"{name}-*.dist-info/*"):
        old.unlink()
    information = packages / f"{name}-{version}.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    (environment / "bin").mkdir(exist_ok=True)
    (packages / f"{name}.py").write_text(code)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    files = [packages / f"{name}.py", information / "METADATA"]
    lines = [f"{file.relative_to(packages)},sha256={_digest(file)},{file.stat().st_size}" for file in files]
    (information / "RECORD").write_text("\n".join([*lines, f"{information.name}/RECORD,,", ""]))
    return environment


def _digest(file: Path) -> str:
    return urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).decode().rstrip("=")
