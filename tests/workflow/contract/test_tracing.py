"""What lines of strace mean."""

from pathlib import Path

from ccat_workflow_manager.contract.tracing import Allowed, accesses
from ccat_workflow_manager.contract.values import Access

ALLOWED = Allowed(
    base=Path("/tmp/test"),  # noqa: S108 - nothing is there
    inputs=Path("/data/raw"),
    read=[Path("/data/raw")],
    written=[Path("/data/run/workspace")],
    working_directory=Path("/data/run/workspace"),
)


def of(*lines: str) -> Access:
    return accesses(lines, ALLOWED)


def test_what_is_allowed_is_not_told() -> None:
    assert of(
        '7 execve("/opt/chai/bin/chai", ["chai"], 0x7ffd /* 9 vars */) = 0',
        '7 openat(AT_FDCWD</data/run/workspace>, "/lib/libc.so.6", O_RDONLY|O_CLOEXEC) = 3</usr/lib/libc.so.6>',
        '7 openat(AT_FDCWD</data/run/workspace>, "input/x", O_RDONLY) = 3</data/raw/x>',
        '7 openat(AT_FDCWD</data/run/workspace>, "a", O_WRONLY|O_CREAT, 0666) = 3</data/run/workspace/a>',
        '7 openat(AT_FDCWD</data/run/workspace>, "/dev/null", O_RDWR) = 3</dev/null<char 1:3>>',
        '7 openat(AT_FDCWD</data/run/workspace>, "/home", O_RDONLY|O_DIRECTORY) = 3</home>',
        '7 openat(AT_FDCWD</data/run/workspace>, "/home/no", O_RDONLY) = -1 ENOENT (No such file or directory)',
    ) == Access(read=[], written=[], temporary=[], contacted=[], inputs=["/data/raw/x"])


def test_files_elsewhere_are_told_by_their_real_place() -> None:
    found = of(
        '7 openat(AT_FDCWD</data/run/workspace>, "link", O_RDONLY) = 3</home/me/flat.fits>',
        '7 openat(AT_FDCWD</data/run/workspace>, "../x", O_RDWR|O_CREAT, 0666) = 3</data/run/x>',
        '7 mkdir("../made", 0777) = 0',
        '7 rename("b", "/home/me/b") = 0',
        '7 symlink("/etc", "../etc") = 0',
        '7 openat(AT_FDCWD</data/run/workspace>, "/tmp/t", O_RDWR|O_CREAT, 0600) = 3</tmp/t>',
        '7 openat(AT_FDCWD</data/run/workspace>, "/tmp/test/t", O_RDWR|O_CREAT, 0600) = 3</tmp/test/t>',
    )
    assert found.read == ["/home/me/flat.fits"]
    assert found.written == ["/data/run/x", "/data/run/made", "/home/me/b", "/data/run/etc", "/tmp/test/t"]  # noqa: S108 - only named
    assert found.temporary == ["/tmp/t"]  # noqa: S108 - only named


def test_relative_paths_begin_where_the_process_stood_last() -> None:
    found = of(
        '7 openat(AT_FDCWD</home/me>, "a", O_RDONLY) = -1 ENOENT (No such file or directory)',
        '7 unlink("a") = 0',
        '8 unlink("a") = 0',
        '8 unlinkat(4</home/you>, "b", 0) = 0',
    )
    assert found.written == ["/home/me/a", "/home/you/b"]


def test_a_call_that_was_interrupted_is_put_together() -> None:
    found = of(
        '7 openat(AT_FDCWD</data/run/workspace>, "/home/me/\\303\\274", O_RDONLY <unfinished ...>',
        '8 openat(AT_FDCWD</data/run/workspace>, "/data/raw/x", O_RDONLY) = 3</data/raw/x>',
        "7 <... openat resumed>) = 4</home/me/\\303\\274>",
    )
    assert found.read == ["/home/me/ü"]


def test_software_may_be_read_where_it_is_installed() -> None:
    found = of(
        '7 execve("/home/me/env/bin/chai", ["chai"], 0x7ffd /* 9 vars */) = 0',
        '7 openat(AT_FDCWD</data/run/workspace>, "/x", O_RDONLY) = 3</home/me/env/lib/chai.py>',
        '7 openat(AT_FDCWD</data/run/workspace>, "/x", O_RDONLY) = 3</home/me/notes.txt>',
    )
    assert found.read == ["/home/me/notes.txt"]


def test_what_has_no_place_is_no_file() -> None:
    assert of('7 openat(AT_FDCWD</data/run/workspace>, "/dev/fd/63", O_RDONLY) = 3<pipe:[4770484]>').read == []


def test_a_path_begins_where_a_process_has_gone_to() -> None:
    found = of('7 chdir("../other") = 0', '7 chdir("/nowhere") = -1 ENOENT (No such file)', '7 mkdir("made", 0777) = 0')
    assert found.written == ["/data/run/other/made"]


def test_other_ways_to_write_are_seen_too() -> None:
    found = of(
        '7 openat2(AT_FDCWD</x>, "/home/me/a", {flags=O_WRONLY|O_CREAT, mode=0644, resolve=0}, 24) = 3</home/me/a>',
        '7 mknod("/home/me/pipe", S_IFIFO|0666) = 0',
        '7 fchmodat(AT_FDCWD</x>, "/home/me/b", 0777) = 0',
    )
    assert found.written == ["/home/me/a", "/home/me/pipe", "/home/me/b"]


def test_who_is_called_is_told_but_not_this_host() -> None:
    found = of(
        '7 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("192.0.2.7")}, 16) = -1 EINPROGRESS'
        " (Operation now in progress)",
        '7 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
        '7 connect(3, {sa_family=AF_UNIX, sun_path="/run/nscd/socket"}, 110) = -1 ENOENT (No such file or directory)',
    )
    assert found.contacted == ["192.0.2.7, port 80"]
    found = of(
        '7 sendto(3, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("192.0.2.8")}) = 1',
        '7 sendto(3, "x", 1, 0, NULL, 0) = 1',
        '7 connect(3, {sa_family=AF_INET6, sin6_port=htons(9), inet_pton(AF_INET6, "::ffff:127.0.0.1", &a)}) = 0',
        '7 connect(3, {sa_family=AF_INET6, sin6_port=htons(9), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)}) = 0',
    )
    assert found.contacted == ["192.0.2.8, port 9", "2001:db8::1, port 9"]
