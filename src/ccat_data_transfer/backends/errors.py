"""What goes wrong at locations, with their files, and between them."""

import os
from pathlib import Path
from typing import ClassVar

from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.marks import MARK


class LocationTrouble(CcatError):
    """A location cannot be used at the moment."""

    code = "location_trouble"
    transient = True
    needs_a_person: ClassVar[bool] = False
    """Whether it lasts until somebody has changed something, so that there is no hurry to try again."""

    def __init__(self, location: str, path: Path | str, *, problem: str, remedy: str) -> None:
        self.location = location
        super().__init__(f"Location {location} ({path}) {problem}; {remedy}.")


class LocationMissing(LocationTrouble):
    """The root directory of a location is not there: unmounted, or never made."""

    code = "location_missing"

    def __init__(self, location: str, path: Path) -> None:
        super().__init__(location, path, problem="is missing: no such directory here", remedy="mount or make it")


class AnotherLocation(LocationTrouble):
    """The directory or bucket of a location is that of another one."""

    code = "another_location"
    needs_a_person = True

    def __init__(self, location: str, place: Path | str, *, of: str) -> None:
        super().__init__(
            location,
            place,
            problem=f"is that of {of}, as its file {MARK} says: two locations must not be one place, as one copy would "
            "count as two",
            remedy=f"mount the right disk, say where {location} lies (`ccat location move`), or put one of the two out "
            f"of use; if this is where {location} lies and {of} lies there no more, put an empty file in place of that",
        )


class AnotherDisk(LocationTrouble):
    """The directory of a location has files, and not the mark that it bore: another disk, or none, is mounted."""

    code = "another_disk"
    needs_a_person = True

    def __init__(self, location: str, path: Path) -> None:
        super().__init__(
            location,
            path,
            problem=f"has files, and not the file {MARK} that it bore: its disk is not mounted, or another one is",
            remedy="mount the right disk; if this is it, make an empty file of that name there, "
            f"`touch {path / MARK}`, and it goes on",
        )


class PathLeavesLocation(LocationTrouble):
    """A path, or a link on it, leads out of the root of its location; what is behind it may be as sound as ever."""

    code = "path_leaves_location"
    needs_a_person = True
    reason: ClassVar[str] = "it, or a link on its path, leads out of the location's directory"

    def __init__(self, location: str, path: Path | str) -> None:
        super().__init__(
            location,
            path,
            problem="leads out of the location's directory: nothing is read or written behind such a link",
            remedy="move back what is behind it, or mount that in place of the link; what was on its way goes on then",
        )


class LocationFull(LocationTrouble):
    """There is no room at a location for what is to be written."""

    code = "location_full"

    def __init__(self, location: str, path: Path, *, needed: int, free: int, reserve: int) -> None:
        kept = f", of which {_readable(reserve)} are its reserve" if reserve else ""
        super().__init__(
            location,
            path,
            problem=f"is full: needs {_readable(needed)}, has {_readable(free)} free{kept}",
            remedy="free space there or raise its quota",
        )


class NoInodes(LocationTrouble):
    """The file system of a location takes no more files, whatever room for bytes it has."""

    code = "no_inodes"

    def __init__(self, location: str, path: Path) -> None:
        super().__init__(
            location,
            path,
            problem="has no free inodes: its file system takes no more files",
            remedy="remove small files that nobody needs, or have it made with more inodes (`df -i` shows them)",
        )


class QuotaUsedUp(LocationTrouble):
    """Who writes at a location has used up its quota there."""

    code = "quota_used_up"

    def __init__(self, location: str, path: Path, *, needed: int) -> None:
        super().__init__(
            location,
            path,
            problem=f"refuses {_readable(needed)}: the disk quota of user {os.geteuid()} is used up there",
            remedy="free some of what that user has there, or have its quota raised (`quota` shows it)",
        )


class LocationFails(LocationTrouble):
    """The file system of a location answered with an error."""

    code = "location_fails"

    def __init__(self, location: str, path: Path, error: OSError) -> None:
        self.reason = error.strerror or str(error)
        super().__init__(
            location,
            path,
            problem=f"fails: {self.reason} ({error.filename or path})",
            remedy="check its disk and its permissions",
        )


class ReadBackDiffers(LocationTrouble):
    """A location gives other bytes than were written to it."""

    code = "read_back_differs"

    def __init__(self, location: str, path: Path | str, *, written: str, read: str) -> None:
        super().__init__(
            location,
            path,
            problem=f"does not keep what is written: wrote {written}, read back {read}",
            remedy="check its disk",
        )


class NotKept(LocationTrouble):
    """A location has lost or changed what was brought there, before it was used."""

    code = "not_kept"

    def __init__(self, location: str, path: Path | str, problem: "BadFile") -> None:
        problem_there = f"does not keep what is brought there: {problem.problem}"
        super().__init__(location, path, problem=problem_there, remedy="check its disk")


class BadFile(CcatError):
    """A file at a location is not what the operations database says."""

    code = "bad_file"

    def __init__(self, location: str, path: Path | str, problem: str) -> None:
        self.problem = f"{path} at location {location} {problem}"
        super().__init__(f"{self.problem}.")


class FileMissing(BadFile):
    """A file is not where it was."""

    code = "file_missing"

    def __init__(self, location: str, path: Path | str) -> None:
        super().__init__(location, path, "is missing")


class FileDiffers(BadFile):
    """A file has another size or other bytes than were registered."""

    code = "file_differs"

    def __init__(self, location: str, path: Path | str, *, registered: str, found: str) -> None:
        super().__init__(location, path, f"has {found}, registered was {registered}")


class ArrivesDamaged(BadFile):
    """A file arrives at another location with other bytes than were registered, also when it is sent again.

    Which of the two disks, or what is between, is to blame is not known.
    """

    code = "arrives_damaged"

    def __init__(self, location: str, path: Path | str, *, at: str) -> None:
        super().__init__(location, path, f"arrives at {at} with other bytes than registered, also when sent again")


class NotTheOriginal(BadFile):
    """Where a raw file was, that is archived, there is something else by now."""

    code = "not_the_original"

    def __init__(self, location: str, path: Path | str) -> None:
        super().__init__(
            location,
            path,
            "is not what was registered and archived, and is kept: move it away, and register it under another name "
            "if it counts",
        )


class NotTheCopy(BadFile):
    """Where a copy was that is to be removed, there is something else by now."""

    code = "not_the_copy"
    needs_a_person: ClassVar[bool] = True

    def __init__(self, location: str, path: Path | str) -> None:
        super().__init__(
            location,
            path,
            "is not the copy that is to be removed, as somebody else wrote there, and is kept: move it away or remove "
            "it, and see that the location's directory is its own",
        )


class DamagedPackage(BadFile):
    """A tar is not what was archived, and does not hold what its package should."""

    code = "damaged_package"


class FileUnreadable(CcatError):
    """A file cannot be read at the moment, while its location can be."""

    code = "file_unreadable"
    transient = True

    def __init__(self, location: str, path: Path | str, *, said: str) -> None:
        self.location, self.path, self.said = location, path, said
        super().__init__(
            f"{path} at location {location} cannot be read ({said}); check its permissions, and the disk that it is on."
        )


class MoverFails(CcatError):
    """What moves files from site to site did not bring them all."""

    code = "mover_fails"
    transient = True

    def __init__(self, program: str, location: str, host: str | None, *, said: str) -> None:
        at = f"{location} on {host}" if host else location
        super().__init__(f"{program} does not bring everything from location {at}: {said}.")


class MoverMissing(CcatError):
    """The program that moves files along a route is not installed."""

    code = "mover_missing"
    transient = True

    def __init__(self, program: str, host: str) -> None:
        super().__init__(f"There is no {program} on {host}: install it, or give the route another method.")


class MoverUnknown(CcatError):
    """A route has a method that nothing here can carry out."""

    code = "mover_unknown"

    def __init__(self, method: str, route: str) -> None:
        super().__init__(
            f"Route {route} has the method {method}, which is foreseen and not built: "
            f"`ccat route set {route} --method rsync`."
        )


def _readable(size: int) -> str:
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:  # noqa: PLR2004 - the step between decimal units
            return f"{value:.4g} {unit}"
        value /= 1000
    return f"{value:.4g} TB"
