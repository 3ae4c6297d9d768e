"""What files a command opens, as `strace` tells."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ccat_workflow_manager.contract.values import Access

_CALLS: Final = (
    *("open", "openat", "openat2", "creat", "execve", "connect", "sendto", "chdir"),
    *("mkdir", "mkdirat", "mknod", "mknodat", "rmdir", "unlink", "unlinkat", "truncate"),
    *("rename", "renameat", "renameat2", "symlink", "symlinkat", "link", "linkat"),
    *("chmod", "fchmodat", "chown", "lchown", "fchownat"),
)
_OPENING: Final = frozenset({"open", "openat", "openat2", "creat"})
_TO_PEERS: Final = frozenset({"connect", "sendto"})
_OPTIONS: Final = ("-f", "-y", "--seccomp-bpf", "-qq", "-s", "4096", "-e", "signal=none", "-e", "trace=")
_LINE: Final = re.compile(r"(?P<pid>\d+)\s+(?P<call>\w+)\((?P<rest>.*)\)\s+= (?P<result>-?\d+)(?:<(?P<opened>.*)>)?$")
_UNFINISHED: Final = re.compile(r"(?P<pid>\d+)\s+(?P<begun>.*) <unfinished \.\.\.>$")
_RESUMED: Final = re.compile(r"(?P<pid>\d+)\s+<\.\.\. \w+ resumed>(?P<rest>.*)$")
_TEXT: Final = re.compile(r'(?:(?P<at>AT_FDCWD|\d+)<(?P<cwd>[^>]*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_PEER: Final = re.compile(r'htons\((?P<port>\d+)\).*?"(?P<address>[0-9A-Fa-f.:]+)"')
_THIS_HOST: Final = re.compile(r"(::ffff:)?127\..*|(::ffff:)?0\.0\.0\.0|::1?")
_OF_A_HOST: Final = "/usr /lib /lib32 /lib64 /bin /sbin /etc /opt /proc /sys /dev /run"
_OF_ITS_PROGRAMS: Final = "/var/cache /var/lib/sss /var/lib/texmf"  # who is who, where that is asked elsewhere; fonts
_SYSTEM: Final = tuple(map(Path, f"{_OF_A_HOST} {_OF_ITS_PROGRAMS}".split()))
"""What belongs to a host: to read of it is no input."""
_DEVICES: Final = (Path("/dev"), Path("/proc"))
_PARTS_OF_A_HOME: Final = 3
_TEMPORARY: Final = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - told where they are written
_LONGEST_FIRST_LINE: Final = 256


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """Directories that a trial may read, and those that it may write; its programs may lie anywhere.

    `base` is that of all trials, which may lie where temporary files do; `inputs` is where their copies are.
    """

    base: Path
    inputs: Path
    read: Sequence[Path]
    written: Sequence[Path]
    working_directory: Path


@dataclass
class _Found:
    """What was reached, in the order in which it was first."""

    programs: set[Path] = field(default_factory=set)
    read: dict[Path, None] = field(default_factory=dict)
    written: dict[Path, None] = field(default_factory=dict)
    contacted: dict[str, None] = field(default_factory=dict)


def traced(strace: str, command: Sequence[str], *, into: Path) -> tuple[str, ...]:
    """Return the command that runs another one and writes down what files it opens."""
    *options, which = _OPTIONS
    calls = ",".join(f"?{call}" for call in _CALLS)  # some of them not every processor has
    return (strace, *options, f"{which}{calls}", "-o", str(into), "--", *command)


def accesses(lines: Iterable[str], allowed: Allowed) -> Access:
    """Say what was reached that is none of a trial's business."""
    found = _Found()
    here: dict[str, Path] = {}
    for match in _whole(lines):
        stood, has_succeeded = here.get(match["pid"], allowed.working_directory), int(match["result"]) >= 0
        if has_succeeded or match["call"] in _TO_PEERS:  # one that takes its time has no result yet
            _note(found, match, stood)
        where = _TEXT.match(match["rest"])
        if where and where["at"] == "AT_FDCWD":
            here[match["pid"]] = Path(where["cwd"])
        elif match["call"] == "chdir" and has_succeeded:
            here[match["pid"]] = [*_paths(match["rest"], stood), stood][0]
    software = [root for program in found.programs for root in _software(program)]
    readable = (*_SYSTEM, *allowed.read, *allowed.written, *software)
    elsewhere = [path for path in found.written if not _is_within(path, (*_DEVICES, *allowed.written))]
    temporary = [path for path in elsewhere if _is_within(path, _TEMPORARY) and not path.is_relative_to(allowed.base)]
    return Access(
        read=[str(path) for path in found.read if not _is_within(path, readable) and path not in found.written],
        written=[str(path) for path in elsewhere if path not in temporary],
        temporary=[str(path) for path in temporary],
        contacted=list(found.contacted),
        inputs=[str(path) for path in (*found.read, *found.written) if path.is_relative_to(allowed.inputs)],
    )


def _whole(lines: Iterable[str]) -> Iterator[re.Match[str]]:
    """Lines as calls, those put together that another process interrupted."""
    begun: dict[str, str] = {}
    for line in lines:
        text = line.rstrip("\n")
        if unfinished := _UNFINISHED.match(text):
            begun[unfinished["pid"]] = unfinished["begun"]
            continue
        if resumed := _RESUMED.match(text):
            text = f"{resumed['pid']} {begun.pop(resumed['pid'], '')}{resumed['rest']}"
        text = re.sub(r" \([^()]*\)$", "", re.sub(r"= -1 E\w+", "= -1", text))
        if match := _LINE.match(text):
            yield match


def _note(found: _Found, match: re.Match[str], here: Path) -> None:
    call, rest = match["call"], match["rest"]
    if call in _TO_PEERS:
        _note_peer(found, rest)
    elif call == "execve":
        found.programs.update(_paths(rest, here)[:1])
    elif call in _OPENING:
        _note_opened(found, match)
    elif call != "chdir":
        paths = _paths(rest, here)
        found.written.update(dict.fromkeys(paths[-1:] if "link" in call and "un" not in call else paths))


def _note_peer(found: _Found, rest: str) -> None:
    peer = _PEER.search(rest)
    if peer and not _THIS_HOST.fullmatch(peer["address"]):
        found.contacted[f"{peer['address']}, port {peer['port']}"] = None


def _note_opened(found: _Found, match: re.Match[str]) -> None:
    path = Path(_plain(match["opened"] or "").removesuffix(" (deleted)"))
    if not path.is_absolute():  # a pipe, as `/dev/fd/63` is one
        return
    if match["call"] == "creat" or re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", match["rest"]):
        found.written[path] = None
    elif "O_DIRECTORY" not in match["rest"] and "O_PATH" not in match["rest"] and not os.path.isdir(path):  # noqa: PTH112 Path.is_dir raises
        found.read[path] = None


def _paths(rest: str, here: Path) -> list[Path]:
    """The absolute paths that a call names."""
    named = [(one["cwd"] or here, _plain(one["path"])) for one in _TEXT.finditer(rest) if one["path"]]
    return [Path(os.path.normpath(Path(directory) / path)) for directory, path in named]


def _plain(text: str) -> str:
    """Text as it was before strace wrote its bytes as ASCII."""
    as_bytes = text.encode("latin-1", "replace").decode("unicode_escape").encode("latin-1", "replace")
    return as_bytes.decode(errors="replace")


def _software(program: Path) -> Iterator[Path]:
    """Where a program, and what it is written for, is installed: the prefix of a `bin`, else its directory."""
    for path in {one for name in (program, _interpreter(program)) if name for one in (name, name.resolve())}:
        is_prefix = path.parent.name == "bin" and len(path.parent.parent.parts) > _PARTS_OF_A_HOME
        yield path.parent.parent if is_prefix else path.parent


def _interpreter(program: Path) -> Path | None:
    """What a script names in its first line, which the kernel opens by itself."""
    try:
        with program.open("rb") as file:
            words = file.readline(_LONGEST_FIRST_LINE).removeprefix(b"#!").split() if file.read(2) == b"#!" else []
    except OSError:
        return None
    return Path(os.fsdecode(words[0])) if words else None


def _is_within(path: Path, directories: Iterable[Path]) -> bool:
    return any(path.is_relative_to(one) for one in directories)
