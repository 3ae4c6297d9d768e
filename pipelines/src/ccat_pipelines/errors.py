"""How a step fails: every error says what was wrong, where, and what to do, and carries its exit code."""

from difflib import get_close_matches
from pathlib import Path


class StepError(Exception):
    """The step cannot go on; the workflow manager reads why from the exit code."""

    exit_code = 1


class BadDataError(StepError):
    """The input files are at fault: the same run would fail again."""

    exit_code = 65


class BadConfigurationError(StepError):
    """The configuration or the way the step was started is at fault."""

    exit_code = 78


class DamagedFileError(BadDataError):
    """A file is not what was once written."""

    def __init__(self, path: Path, *, part: str, problem: str) -> None:
        """Name the file, the part of it and what is wrong with that."""
        super().__init__(f"{path}, {part}: {problem}: fetch a good copy from the archive and run again")


class UnreadableFileError(BadDataError):
    """An input that the manifest lists is not there, or cannot be read."""

    def __init__(self, path: Path, reason: str) -> None:
        """Name the file and the operating system's reason."""
        super().__init__(f"{path}: cannot be read ({reason}): stage it again")


class WrongChecksumError(BadDataError):
    """A file is readable, yet is not the one that was registered."""

    def __init__(self, path: Path, *, registered: str, found: str) -> None:
        """Name the file with both checksums."""
        super().__init__(f"{path}: its checksum is {found}, registered is {registered}: stage it again")


class MissingInputError(BadConfigurationError):
    """The step did not get the files that it works on."""

    def __init__(self, pattern: str, *, wanted: str, found: int, remedy: str) -> None:
        """Say which files were wanted, how many there are, and how to get them."""
        super().__init__(f"wants {wanted} named {pattern} among its inputs, found {found}: {remedy}")


class ManifestError(BadConfigurationError):
    """The manifest is missing or does not keep the contract."""

    def __init__(self, where: str, problem: str) -> None:
        """Name the place and the problem."""
        super().__init__(f"{where}: {problem}: start the step through the workflow manager, or mend its manifest.json")


class UnknownParameterError(BadConfigurationError):
    """The configuration names a parameter that the step does not have."""

    def __init__(self, name: str, valid: list[str]) -> None:
        """Name the parameter and the nearest valid one."""
        near = get_close_matches(name, valid, n=1, cutoff=0)
        hint = f"the nearest is '{near[0]}'; all are" if near else "it has"
        super().__init__(f"config.parameters: no parameter '{name}': {hint} {', '.join(valid) or 'none'}")


class BadParameterError(BadConfigurationError):
    """A parameter has a value that the step cannot use, or none."""

    def __init__(self, name: str, wanted: str, value: object) -> None:
        """Name the parameter, what it must be and what it is."""
        super().__init__(f"config.parameters: '{name}' must be {wanted}, not {value!r}")
