"""A real Slurm cluster of one node with accounting, and a partition that goes first; a test may kill its daemons."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.needs import give_up
from tests.service.support import free_port

_PROGRAMS: Final = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "sbatch")
_IN_USE: Final = frozenset({"idle", "mixed", "allocated", "completing"})
_PATH: Final = f"{os.environ['PATH']}:/usr/sbin"
"""Where daemons lie also for those who are not root."""
_ADVICE: Final = "apt-get install slurm-wlm slurmdbd munge mariadb-server (tests start a cluster of their own)"


@dataclass
class SlurmCluster:
    """The cluster; its files lie in a directory of its own."""

    directory: Path
    has_accounting: bool = True
    min_job_age_s: int = 10
    cpus: int = 2
    """Also on a machine that has others."""
    ports: dict[str, int] = field(
        default_factory=lambda: {name: free_port() for name in ("ctld", "slurmd", "dbd", "mariadb")}
    )
    _daemons: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        """What SLURM_CONF names."""
        return self.directory / "slurm.conf"

    def run(self, *command: str) -> str:
        """What a command of Slurm prints."""
        environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(self.conf)}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout

    def start(self, daemon: str) -> None:
        """Start one of munged, mariadbd, slurmdbd, slurmctld and slurmd, which must not be running."""
        environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(self.conf)}
        log = (self.directory / f"{daemon}.log").open("ab")
        command = {
            "munged": [
                *("munged", "--foreground", "--force", f"--key-file={self.directory}/munge.key"),
                *(f"--socket={self._munge}", f"--pid-file={self.directory}/munged.pid"),
                *(f"--log-file={self.directory}/munged.log", f"--seed-file={self.directory}/munged.seed"),
            ],
            "mariadbd": [
                *("mariadbd", "--no-defaults", f"--user={_user()}", f"--datadir={self.directory}/db"),
                f"--tmpdir={self.directory}",
                *("--bind-address=127.0.0.1", f"--port={self.ports['mariadb']}", "--skip-name-resolve"),
                *(f"--socket={self._mariadb}", f"--pid-file={self.directory}/mariadbd.pid"),
                *("--innodb-buffer-pool-size=256M", "--innodb-lock-wait-timeout=900"),
            ],
            "slurmdbd": ["slurmdbd", "-D"],
            "slurmctld": ["slurmctld", "-D"],
            "slurmd": ["slurmd", "-D", "-N", _host()],
        }[daemon]
        self._daemons[daemon] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        log.close()

    def kill(self, daemon: str) -> None:
        """End a daemon by SIGKILL."""
        process = self._daemons.pop(daemon)
        process.kill()
        process.wait()

    def start_all(self) -> None:
        """Start everything, and wait until jobs may be handed in."""
        self._write_files()
        self.start("munged")
        _until(self._munge.exists, "munged")
        if self.has_accounting:
            self._start_accounting()
        self.start("slurmctld")
        self.start("slurmd")
        self.until_ready()

    def restart_controller(self, *, first_job: int | None = None) -> None:
        """Start slurmctld after it was killed.

        It has forgotten its last seconds. What ended in these it takes for running, until its node says what runs
        there: by itself that is minutes later. It gives numbers again that it has forgotten, which its node refuses for
        minutes, unless there is a number from which it goes on.
        """
        if first_job is not None:
            with self.conf.open("a") as conf:
                conf.write(f"FirstJobId={first_job}\n")
        self.start("slurmctld")
        self.until_ready()
        self.kill("slurmd")  # jobs do not notice
        self.start("slurmd")
        self.until_ready()

    def resume(self) -> None:
        """Use the node again, as an administrator does, where Slurm drained it for a job that it could not report."""
        if "drain" in self._state():
            self.run("scontrol", "update", f"NodeName={_host()}", "State=RESUME")
            _until(lambda: self._state() in _IN_USE, "the node")

    def has_saved(self, *, since: float) -> bool:
        """Whether slurmctld has written down the state of all jobs since then, which it does every few seconds."""
        return (self.directory / "state/job_state").stat().st_mtime > since

    def until_ready(self) -> None:
        """Wait until the node takes jobs."""
        _until(lambda: self._state() in {*_IN_USE, "drained", "draining"}, "slurmctld and slurmd")
        self.resume()

    def _steps(self) -> list[psutil.Process]:
        return [one for one in psutil.process_iter() if _is_step_of(one, self.directory / "spool")]

    def until_accounting_answers(self) -> None:
        """Wait until slurmdbd answers."""
        _until(lambda: self._answers("sacctmgr", "-n", "list", "cluster"), "slurmdbd")

    def restart_accounting(self) -> None:
        """Start slurmdbd after it was killed, and wait until it answers; slurmctld tells it of jobs seconds later."""
        self.start("slurmdbd")
        self.until_accounting_answers()

    def stop_all(self) -> None:
        """End everything that was started, jobs too."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--state=RUNNING", f"--user={os.geteuid()}")
        steps = self._steps()
        for daemon in ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            if daemon in self._daemons:
                process = self._daemons.pop(daemon)
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for one in steps:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()

    @property
    def _munge(self) -> Path:
        return self.directory / "munge.socket"

    @property
    def _mariadb(self) -> Path:
        return self.directory / "mariadb.sock"

    def _state(self) -> str:
        try:
            return self.run("sinfo", "-h", "-o", "%T").strip()
        except subprocess.SubprocessError:
            return ""

    def _answers(self, *command: str) -> bool:
        try:
            self.run(*command)
        except subprocess.SubprocessError:
            return False
        return True

    def _start_accounting(self) -> None:
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--user={_user()}", f"--datadir={self.directory}/db"],
            check=True,
            capture_output=True,
            env={**os.environ, "TMPDIR": str(self.directory)},  # in one that others share it trips over their tables
        )
        self.start("mariadbd")
        statements = (
            "create database slurm_acct_db; create user slurm@127.0.0.1 identified by 'slurm'; "
            "grant all on slurm_acct_db.* to slurm@127.0.0.1"
        )
        ask = ["mariadb", "--no-defaults", "-S", str(self._mariadb), "-e"]
        _until(lambda: subprocess.run([*ask, "select 1"], capture_output=True, check=False).returncode == 0, "mariadbd")
        subprocess.run([*ask, statements], check=True)
        self.start("slurmdbd")
        self.until_accounting_answers()

    def _write_files(self) -> None:
        self.directory.chmod(0o755)  # else munge lets nobody in
        for name in ("state", "spool", "db"):
            (self.directory / name).mkdir(exist_ok=True)
        key = self.directory / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.conf.write_text(self._slurm_conf())
        if self.has_accounting:
            settings = self.directory / "slurmdbd.conf"
            settings.write_text(self._slurmdbd_conf())
            settings.chmod(0o600)

    def _slurm_conf(self) -> str:
        memory = int(psutil.virtual_memory().total / 2**20 * 0.8)
        settings = {
            "ClusterName": "test",
            "SlurmctldHost": f"{_host()}(127.0.0.1)",
            "SlurmctldPort": self.ports["ctld"],
            "SlurmdPort": self.ports["slurmd"],
            "SlurmUser": _user(),
            "SlurmdUser": _user(),
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self._munge}",
            "CredType": "cred/munge",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": "sched_min_interval=100000,batch_sched_delay=0",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "DefMemPerCPU": 500,
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "CANCEL",
            "MinJobAge": self.min_job_age_s,
            "MaxArraySize": 1001,
            "JobAcctGatherType": "jobacct_gather/linux",
            "JobAcctGatherParams": "OverMemoryKill",
            "JobAcctGatherFrequency": 1,
            "KillWait": 1,
            "MessageTimeout": 5,
            "ReturnToService": 2,
            "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",
            "SlurmctldPidFile": self.directory / "slurmctld.pid",
            "SlurmdPidFile": self.directory / "slurmd.pid",
            "StateSaveLocation": self.directory / "state",
            "SlurmdSpoolDir": self.directory / "spool",
            "SlurmdParameters": "config_overrides",
        }
        if self.has_accounting:
            settings |= {
                "AccountingStorageType": "accounting_storage/slurmdbd",
                "AccountingStorageHost": "localhost",
                "AccountingStoragePort": self.ports["dbd"],
                "AccountingStoragePass": self._munge,
            }
        lines = [f"{name}={value}" for name, value in settings.items()]
        lines.append(f"NodeName={_host()} NodeAddr=127.0.0.1 CPUs={self.cpus} RealMemory={memory} State=UNKNOWN")
        partitions = {  # urgent jobs take the CPUs of others away, which are ended or, in `again`, would be requeued
            "main": "Default=YES PriorityTier=1",
            "again": "PriorityTier=1 PreemptMode=REQUEUE",
            "urgent": "PriorityTier=2 PreemptMode=OFF",
        }
        for name, how in partitions.items():
            lines.append(f"PartitionName={name} Nodes=ALL MaxTime=INFINITE State=UP {how}")
        return "\n".join(lines) + "\n"

    def _slurmdbd_conf(self) -> str:
        settings = {
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self._munge}",
            "DbdHost": "localhost",
            "DbdAddr": "127.0.0.1",
            "CommunicationParameters": "NoInAddrAny",
            "DbdPort": self.ports["dbd"],
            "SlurmUser": _user(),
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "127.0.0.1",
            "StoragePort": self.ports["mariadb"],
            "StorageUser": "slurm",
            "StoragePass": "slurm",
            "StorageLoc": "slurm_acct_db",
            "PidFile": self.directory / "slurmdbd.pid",
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


@contextlib.contextmanager
def slurm_cluster(directory: Path, *, has_accounting: bool = True) -> Iterator[SlurmCluster]:
    """A running cluster; its files lie in a directory whose name is short, as it holds sockets."""
    if missing := what_is_missing():
        give_up(missing)
    cluster = SlurmCluster(directory, has_accounting)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.stop_all()


def what_is_missing() -> str | None:
    """What this machine lacks for a cluster, and how to get it; None where it has everything."""
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]
    return f"{', '.join(missing)} not found; {_ADVICE}" if missing else None


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _is_step_of(process: psutil.Process, spool: Path) -> bool:
    """Whether it looks after a job of this cluster; its title lies where its environment was."""
    try:
        is_step = process.name().startswith("slurmstepd")
        return is_step and any(str(one.laddr).startswith(f"{spool}/") for one in process.net_connections("unix"))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _until(condition: Callable[[], object], what: str, *, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not start within {within} s"
        time.sleep(0.1)
