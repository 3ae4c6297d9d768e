"""Logs are read as they grow, from files that may not be there yet."""

from pathlib import Path

from ccat_workflow_manager.execution.layout import AttemptLayout
from ccat_workflow_manager.execution.logs import Line, Log, Stream


def log(directory: Path) -> Log:
    layout = AttemptLayout(directory)
    layout.logs.mkdir(parents=True)
    return Log(layout)


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def out(text: str) -> Line:
    return Line(Stream.STDOUT, text)


def test_the_last_lines_of_each_stream(tmp_path: Path) -> None:
    written = log(tmp_path)
    append(written.layout.stdout, b"".join(b"line %d\n" % number for number in range(100_000)))
    append(written.layout.stderr, b"only \xff this\r\n")
    assert written.last(2) == [
        out("line 99998"),
        out("line 99999"),
        Line(Stream.STDERR, "only \N{REPLACEMENT CHARACTER} this"),
    ]
    assert len(written.last(50_000)) == 50_001
    assert written.last(0) == []


def test_what_is_written_later_comes_line_by_line_and_once(tmp_path: Path) -> None:
    written = log(tmp_path)
    assert (written.last(9), written.more()) == ([], [])
    append(written.layout.stdout, b"one\ntw")
    assert written.more() == [out("one")]
    append(written.layout.stdout, b"o\nthree")
    assert written.more() == [out("two")]
    assert (written.more(), written.rest(), written.rest()) == ([], [out("three")], [])


def test_a_line_that_was_begun_before_is_shown_whole(tmp_path: Path) -> None:
    written = log(tmp_path)
    append(written.layout.stdout, "one\nM 17 \N{DEGREE SIGN}".encode()[:-1])
    assert written.last(5) == [out("one")]
    append(written.layout.stdout, "\N{DEGREE SIGN}".encode()[-1:] + b"\n")
    assert written.more() == [out("M 17 \N{DEGREE SIGN}")]
