"""The container contract, seen from inside: where the inputs are, what is asked for, where the products go.

A step needs nothing else from the workflow manager. Copy this module with `errors` and `parameters`
to start a reduction of your own.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ccat_pipelines.errors import ManifestError, MissingInputError, UnreadableFileError, WrongChecksumError
from ccat_pipelines.parameters import P, parse

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DISTRIBUTION = "ccat-pipelines"
STAMPED_INPUTS = 8

Role = Literal["raw", "upstream", "auxiliary"]
Kind = Literal["science", "qa", "plots", "statistics", "logs"]
Card = tuple[str, str | int, str]


@dataclass(frozen=True)
class InputFile:
    """A file that the step may read, with the checksum (`sha256:…`) under which it is registered."""

    role: Role
    path: Path
    checksum: str

    def read(self) -> bytes:
        """Return the content as it is on disk."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UnreadableFileError(self.path, str(error.strerror)) from error

    def confirm(self, content: bytes) -> None:
        """Refuse content that is not what was registered."""
        found = "sha256:" + hashlib.sha256(content).hexdigest()
        if found != self.checksum:
            raise WrongChecksumError(self.path, registered=self.checksum, found=found)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One execution of a step, as the manifest and the environment describe it."""

    step: str
    is_final: bool
    sub_group: str
    given: Mapping[str, Any]
    inputs: tuple[InputFile, ...]
    output_dir: Path

    def parameters(self, kind: type[P]) -> P:
        """Return the parameters of the configuration, checked against the step's own dataclass."""
        return parse(kind, self.given)

    def all(self, role: Role, pattern: str, *, remedy: str) -> list[InputFile]:
        """Return the inputs of this role whose name matches, in an order that does not depend on where they lie."""
        found = [file for file in self.inputs if file.role == role and fnmatch(file.path.name, pattern)]
        if not found:
            raise MissingInputError(pattern, wanted=f"{role} files", found=0, remedy=remedy)
        return sorted(found, key=lambda file: file.checksum)

    def only(self, role: Role, pattern: str, *, remedy: str) -> InputFile:
        """Return the one input of this role whose name matches."""
        found = self.all(role, pattern, remedy=remedy)
        if len(found) > 1:
            raise MissingInputError(pattern, wanted=f"one {role} file", found=len(found), remedy=remedy)
        return found[0]

    def product(self, kind: Kind, name: str) -> Path:
        """Return where to write a product: a final step sorts them by kind, an intermediate one does not."""
        path = self.output_dir / kind / name if self.is_final else self.output_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a QA file; `metrics.json` (flat name → number) becomes the run's quality metrics."""
        text = json.dumps(content, indent=2, allow_nan=False)
        path = self.output_dir / "qa" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")

    def stamp(self, parameters: "DataclassInstance") -> list[Card]:
        """Return header cards that make a product traceable when it has left the archive.

        Nothing in them differs between two runs of the same software over the same inputs, so that
        a repeated run makes the same bytes and nothing downstream is redone. The run's id is in the catalogue.
        """
        sums = sorted(file.checksum.removeprefix("sha256:") for file in self.inputs)
        step = self.step.encode("ascii", "replace").decode()  # a label may have any character, a header may not
        by = f"{step} {version(DISTRIBUTION)}"
        return [
            ("SOFTNAME", DISTRIBUTION, "software that made this file"),
            ("SOFTVER", version(DISTRIBUTION), "and its version"),
            ("STEP", step, "reduction step"),
            ("SUBGROUP", self.sub_group, "what it was made of"),
            ("CONFIG", _digest(json.dumps(asdict(parameters), sort_keys=True)), ""),
            ("NINPUTS", len(sums), "INPUTS: SHA-256 of their sorted SHA-256"),
            ("INPUTS", _digest("\n".join(sums)), ""),
            *((f"INPUT{n}", checksum, "") for n, checksum in enumerate(sums[:STAMPED_INPUTS], 1)),
            *(("HISTORY", f"{by}: {name} = {json.dumps(value)}", "") for name, value in asdict(parameters).items()),
        ]


def load(environ: Mapping[str, str]) -> Execution:
    """Read what the workflow manager asks for, from `WORKFLOW_MANIFEST` and the variables beside it."""
    manifest = Path(_variable(environ, "WORKFLOW_MANIFEST"))
    document = _parse(manifest, _text(manifest))
    try:
        return Execution(
            step=document["step"]["name"],
            is_final=document["step"]["is_final"],
            sub_group=document["sub_group"]["key"],
            given=document["config"]["parameters"] or {},
            inputs=tuple(_inputs(manifest, document["inputs"], Path(environ.get("WORKFLOW_INPUT_DIR", "")))),
            output_dir=Path(_variable(environ, "WORKFLOW_OUTPUT_DIR")),
        )
    except KeyError as error:
        raise ManifestError(str(manifest), f"has no {error}") from error
    except (TypeError, AttributeError) as error:
        raise ManifestError(str(manifest), f"is not of the published form ({error})") from error


def _inputs(manifest: Path, inputs: Mapping[str, Any], root: Path) -> Iterator[InputFile]:
    for role, entry in _entries(manifest, inputs):
        path = root / entry["path"]  # an absolute path stays as it is
        if role == "raw":
            yield from (InputFile("raw", path / file["path"], file["checksum"]) for file in entry["files"])
        else:
            yield InputFile(role, path, entry["checksum"])


def _entries(manifest: Path, inputs: Mapping[str, Any]) -> Iterator[tuple[Role, Mapping[str, Any]]]:
    """Yield every input with its role, from the manifest itself or from the file of lines beside it."""
    if "file" in inputs:
        lines = manifest.with_name(inputs["file"])
        entries = (_parse(lines, line) for line in _text(lines).splitlines() if line.strip())
        yield from ((entry["role"], entry) for entry in entries)
        return
    roles: tuple[Role, ...] = ("raw", "upstream", "auxiliary")
    for role in roles:
        yield from ((role, entry) for entry in inputs.get(role, []))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _variable(environ: Mapping[str, str], name: str) -> str:
    if not environ.get(name):
        raise ManifestError(name, "this environment variable is not set")
    return environ[name]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(str(path), f"cannot be read ({error})") from error


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ManifestError(str(path), f"is not JSON ({error})") from error
