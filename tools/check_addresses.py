"""Nothing committed says where packages come from, or where one machine keeps its files.

Locks pin versions by hash and leave the address to the client's settings, so that they serve behind any mirror.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.findings import Finding, project_files, report

LOCKS_WITH_ADDRESSES = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "yarn.lock"}

ANYWHERE = {
    re.compile(r"--(?:extra-)?index-url[\s=]+https?:"): "names a package index",
    re.compile(r'"resolved"\s*:\s*"https?:'): "records a download address (npm: omit-lockfile-registry-resolved=true)",
    re.compile(r"\bregistry\s*=\s*[\"']?https?:"): "names a package registry",
    re.compile(r"https?:[^\s\"']*\.(?:whl|tgz|crate)\b"): "is a download address",
    re.compile(r"(?<![\w./~*{})$:-])/(?:work|root)/\w"): "is an absolute path of one machine",
}
IN_REQUIREMENTS = {re.compile(r"https?://|--(?:extra-)?index-url|--find-links"): "has no place in a lock file"}


def addresses(path: Path, text: str) -> Iterator[Finding]:
    """Lines of one file that hold an address or a path of one machine."""
    rules = ANYWHERE | IN_REQUIREMENTS if path.parts[0] == "requirements" else ANYWHERE
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, complaint in rules.items():
            if found := pattern.search(line):
                yield Finding(path, number, f"`{found.group()}` {complaint}")
                break


def text_of(path: Path) -> str:
    """The file's text; nothing for a picture or other data."""
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


def main(root: Path) -> int:
    """Check every file of the project."""
    paths = project_files(root)
    findings = [
        Finding(path, 1, "this kind of lock records addresses: pin in requirements/*.txt instead")
        for path in paths
        if path.name in LOCKS_WITH_ADDRESSES
    ]
    findings += [finding for path in paths for finding in addresses(path, text_of(root / path))]
    return report("addresses", findings)


if __name__ == "__main__":
    sys.exit(main(Path.cwd()))
