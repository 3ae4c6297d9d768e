from pathlib import Path

import pytest

from tools import check_addresses

HTTPS = "https" + "://"
HOME, TOP = "/" + "root", "/" + "work"
"""Spelled so that the check, which reads this file too, finds nothing here."""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("requirements/dev.txt", f"--index-url {HTTPS}packages.example/simple"),
        ("requirements/dev.txt", "--extra-index-url=" + f"{HTTPS}packages.example/simple"),
        ("requirements/dev.txt", f"numpy @ {HTTPS}packages.example/numpy"),
        ("requirements/dev.in", "--find-links wheels"),
        ("ops-db-ui/package-lock.json", '      "resolved": "' + f'{HTTPS}packages.example/vue.js",'),
        ("ops-db-ui/.npmrc", f"registry={HTTPS}packages.example"),
        ("system-integration/Dockerfile", f"RUN pip install {HTTPS}packages.example/uv-1-py3-none-any" + ".whl"),
        ("docs/set-up.md", f"see {TOP}/main/src"),
        ("src/ccat/stack/postgresql.py", f'BASE = Path("{HOME}/ccat")'),
    ],
)
def test_an_address_or_a_path_of_one_machine_is_found(path: str, line: str) -> None:
    (finding,) = check_addresses.addresses(Path(path), f"first\n{line}\n")
    assert finding.line == 2


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("requirements/dev.txt", "uv==0.1 --hash=sha256:00"),
        ("README.md", f"See [the telescope]({HTTPS}www.ccatobservatory.org)."),
        ("docs/contract.md", "the container sees /workflow/input and /workspace"),
        ("src/ccat/settings.py", "network/work/item"),
        ("Makefile", "$(BUILD)/work/x"),
    ],
)
def test_links_for_readers_and_other_paths_are_fine(path: str, line: str) -> None:
    assert list(check_addresses.addresses(Path(path), f"{line}\n")) == []


def test_a_picture_is_no_text_to_read(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(b"\x89PNG\xff\xfe")
    assert check_addresses.text_of(tmp_path / "map.png") == ""
