"""A file behind a link that leads out of its location holds up no other of its parcel."""

from pathlib import Path

from ccat_data_transfer.backends.errors import FileUnreadable
from ccat_data_transfer.backends.movers import Parcel, copy
from ccat_data_transfer.backends.posix import Disk


def test_one_file_behind_a_link_is_unread_and_the_others_are_brought(tmp_path: Path) -> None:
    root, into = tmp_path / "origin", tmp_path / "into"
    root.mkdir()
    into.mkdir()
    (tmp_path / "moved").write_bytes(b"m")
    (root / "behind").symlink_to(tmp_path / "moved")
    (root / "here").write_bytes(b"h")
    origin = Disk(name="ccat/source", root=root, token="a", progress=lambda: None)
    parcel = Parcel(origin, None, [("behind", 1), ("here", 1)])
    told = copy(parcel, into, progress=lambda: None)
    assert [(path, type(problem)) for path, problem in told.items()] == [("behind", FileUnreadable)]
    assert (into / "here").read_bytes() == b"h"
