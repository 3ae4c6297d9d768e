import os
import uuid
from pathlib import Path

import pytest

from ccat.cli.output import print_table
from ccat.cli.scans import NotAChecksum, NotAFile, describe, read_checksums

ONE, OTHER = 64 * "1", 64 * "2"


def test_checksums_are_read_as_sha256sum_writes_them(tmp_path: Path) -> None:
    listed = tmp_path / "sums"
    listed.write_text(f"{ONE}  scan 1.fits\n{OTHER} *night/scan-2.fits\n{ONE}  again/scan 1.fits\n")
    assert read_checksums(listed) == {"scan 1.fits": f"sha256:{ONE}", "scan-2.fits": f"sha256:{OTHER}"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"nonsense", "line 2: `nonsense` is no SHA-256 with a file name"),
        (b"d41d8cd98f00b204e9800998ecf8427e  md5.fits", "line 2: `d41d8cd98f00b204e9800998ecf8427e  md5.fits` is no"),
        (b"\xff\xfe", "line 2: .* is no SHA-256"),
        (f"{OTHER}  elsewhere/scan.fits".encode(), "line 2: scan.fits has another checksum in a line before"),
    ],
)
def test_a_list_that_is_none_of_checksums_is_refused_with_its_line(tmp_path: Path, line: bytes, problem: str) -> None:
    listed = tmp_path / "sums"
    listed.write_bytes(f"{ONE}  scan.fits\n".encode() + line)
    with pytest.raises(NotAChecksum, match=f"sums, {problem}.*nothing was registered"):
        read_checksums(listed)


def test_brackets_in_a_table_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[a].yaml", ["failure"], [["cannot read [/workflow/output] and [red]"]])
    assert "[a].yaml" in (shown := capsys.readouterr().out)
    assert "cannot read [/workflow/output] and [red]" in shown


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.fits")
    with pytest.raises(NotAFile, match="is no regular file, and cannot be archived"):
        describe([tmp_path / "pipe.fits"], uuid.uuid4(), root=tmp_path, location="ccat/chai", checksums=None)
