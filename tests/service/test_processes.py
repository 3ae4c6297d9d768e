"""Whether a process is gone is said only where it is certain."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from ccat_service import processes
from ccat_service.processes import ProcessIdentity, claimant, is_gone


@pytest.fixture
def zombie() -> Iterator[int]:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        yield child.pid


def test_an_identity_is_not_fooled_by_a_pid_that_is_used_again() -> None:
    me = ProcessIdentity.of(os.getpid())
    assert me is not None
    assert me.is_alive()
    for other in ({"start_ticks": me.start_ticks + 1}, {"boot_id": "before the last boot"}):
        assert not me.model_copy(update=other).is_alive()


def test_a_zombie_counts_as_gone(zombie: int) -> None:
    assert ProcessIdentity.of(zombie) is None


def test_a_claim_of_a_living_process_is_nobodys_orphan() -> None:
    assert not is_gone(claimant("transfer-worker@host:1"))


def test_a_claim_whose_process_ended_is_told() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, claimant("transfer-worker@host:1").encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert is_gone(os.read(reader, 1000).decode())
    os.close(reader)
    os.close(writer)


def test_of_another_container_or_boot_or_of_an_unsigned_claim_nobody_can_tell() -> None:
    signed = claimant("transfer-worker@host:1")
    pid = f"[{os.getpid()}."
    assert pid in signed
    elsewhere = signed.replace(processes._world(), "00000000").replace(pid, "[99999999.")
    assert not is_gone(elsewhere)
    assert not is_gone("transfer-worker@host:99999999")
