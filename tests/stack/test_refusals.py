import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ccat.stack import postgresql
from ccat.stack.accounts import check_reachable, server_account
from ccat.stack.directory import open_directory
from ccat.stack.errors import (
    InitializationFailed,
    NotEnoughSpace,
    OtherMajorVersion,
    UnreachableForAccount,
)
from tests.needs import give_up
from tests.stack.support import Stack

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system, or act as another user")


def refusal(directory: Path, verb: str = "up") -> str:
    answer = Stack(directory).ccat(verb)
    assert answer.exit_code == 1
    assert answer.stderr.count("\n") == 1, "one line says it"
    return answer.stderr


def test_a_data_directory_without_a_parent_is_refused(tmp_path: Path) -> None:
    assert f"{tmp_path / 'typo'} does not exist. Create that (`mkdir -p" in refusal(tmp_path / "typo" / "data")
    assert not (tmp_path / "typo").exists()


def test_a_file_in_the_place_of_the_data_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("precious")
    assert f"{tmp_path / 'data'} is not a directory" in refusal(tmp_path / "data")
    assert (tmp_path / "data").read_text() == "precious"


def test_a_data_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with read_only(tmp_path) as place:
        assert f"The data directory {place / 'data'} cannot be written" in refusal(place / "data")


@contextmanager
def read_only(place: Path) -> Iterator[Path]:
    if os.geteuid() == 0:  # whom permissions do not stop
        with mounted(place, "ro,size=1g"):
            yield place
    else:
        place.chmod(0o500)
        yield place
        place.chmod(0o700)


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        give_up("this container may not mount a file system: start it with CAP_SYS_ADMIN (`--cap-add SYS_ADMIN`)")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@as_root
def test_a_data_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", 65534, 65534)
    assert "belongs to user id 65534, not to you" in refusal(tmp_path / "data")


def test_a_full_file_system_is_refused_with_figures(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(NotEnoughSpace, match=r"has \d+ MB free, \d+ MB are needed"):
        open_directory(tmp_path / "data", enough_space=2 * free)
    assert not (tmp_path / "data").exists()


def test_status_and_down_name_the_command_that_starts_a_stack_where_there_is_none(tmp_path: Path) -> None:
    for verb in ("status", "down"):
        assert f"There is no stack in {tmp_path / 'data'}. Start one with `ccat up" in refusal(tmp_path / "data", verb)


def test_a_cluster_of_another_major_version_is_refused_untouched(tmp_path: Path) -> None:
    version = tmp_path / "data" / "PG_VERSION"
    version.parent.mkdir()
    version.write_text("16\n")
    with pytest.raises(OtherMajorVersion, match="was written by PostgreSQL 16; this is PostgreSQL 18"):
        postgresql.prepare(tmp_path)
    assert version.read_text() == "16\n"


@as_root
def test_a_small_file_system_is_refused_and_a_cluster_that_does_not_fit_leaves_no_half_one(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=20m"):
        assert "MB free, 500 MB are needed" in refusal(tmp_path / "data")
        with pytest.raises(InitializationFailed, match=r"No space left on device|Check free disk space"):
            postgresql.prepare(tmp_path / "cluster")
        assert not (tmp_path / "cluster" / "data").exists()


@as_root
def test_a_program_that_the_server_account_cannot_reach_is_refused_with_the_closed_directory(tmp_path: Path) -> None:
    closed = tmp_path / "home"
    (closed / "bin").mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(UnreachableForAccount, match=r"cannot reach .*/home/bin/postgres: .*chmod o\+x"):
        check_reachable(closed / "bin" / "postgres", server_account())
