"""Names that definitions use of what is defined elsewhere: in the same file, or in the database."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.definitions import document as written
from ccat_ops_db.definitions.parsing import InvalidDefinition
from ccat_ops_db.definitions.steps import Step
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import CONFIG, GROUPING, LOCATION, OBS_MODE, SOFTWARE, SOURCE, Named, UnknownName, find, names
from ccat_ops_db.states import LocationType

_NAMED: Final[tuple[Named[Any], ...]] = (SOURCE, OBS_MODE, GROUPING, LOCATION, SOFTWARE, CONFIG)


class NoProcessingLocation(CcatError):
    """A pipeline names a location where nothing can be processed."""

    code = "no_processing_location"

    def __init__(self, where: str, location: str, kind: str) -> None:
        super().__init__(f"{where}: `{location}` is a {kind} location; a pipeline runs at a processing location.")


@dataclass(frozen=True)
class Reference:
    """A name, the kind of thing that it stands for, and where in the file it is used."""

    what: str
    name: str
    where: str


def require_known_names(session: Session, definitions: written.Definitions) -> None:
    """Raise InvalidDefinition, with all problems at once, unless every name that is used stands for something."""
    known = _known(session, _defined(definitions))
    problems = [
        str(UnknownName(one.what, one.name, known[one.what], where=one.where))
        for one in _references(definitions)
        if one.name not in known[one.what]
    ]
    problems += _wrong_locations(session, definitions, known[LOCATION.what])
    if problems:
        raise InvalidDefinition(problems)


def _references(definitions: written.Definitions) -> Iterator[Reference]:
    for i, program in enumerate(definitions.observing_programs):
        for j, observation in enumerate(program.observations):
            where = f"observing_programs[{i}].observations[{j}]"
            yield Reference(SOURCE.what, observation.source, f"{where}.source")
            yield Reference(OBS_MODE.what, observation.obs_mode, f"{where}.obs_mode")
    for i, pipeline in enumerate(definitions.pipelines):
        yield Reference(GROUPING.what, pipeline.grouping, f"pipelines[{i}].grouping")
        yield Reference(LOCATION.what, pipeline.location, f"pipelines[{i}].location")
        for j, step in enumerate(pipeline.steps):
            yield from _references_of_step(step, f"pipelines[{i}].steps[{j}]")


def _references_of_step(step: Step, where: str) -> Iterator[Reference]:
    yield Reference(SOFTWARE.what, step.software, f"{where}.software")
    if step.version is not None:
        yield Reference(_version_of(step.software), step.version, f"{where}.version")
    if step.config is not None:
        yield Reference(CONFIG.what, step.config, f"{where}.config")


def _version_of(software: str) -> str:
    return f"version of {software}"


def _defined(definitions: written.Definitions) -> dict[str, set[str]]:
    """What the file itself defines: kind → names."""
    return {
        SOURCE.what: {one.name for one in definitions.sources},
        SOFTWARE.what: {one.name for one in definitions.software},
        CONFIG.what: {one.name for one in definitions.configs},
        GROUPING.what: {one.name for one in definitions.groupings},
        **{_version_of(one.name): {version.version for version in one.versions} for one in definitions.software},
    }


class _Known(dict[str, set[str]]):
    def __missing__(self, what: str) -> set[str]:
        return self.setdefault(what, set())


def _known(session: Session, defined: Mapping[str, set[str]]) -> _Known:
    known = _Known(defined)
    for named in _NAMED:
        known[named.what].update(names(session, named))
    version = models.ReductionSoftwareVersion
    rows = session.execute(sa.select(models.ReductionSoftware.name, version.version).join(version.reduction_software))
    for software, released in rows:
        known[_version_of(software)].add(released)
    return known


def _wrong_locations(session: Session, definitions: written.Definitions, known: Collection[str]) -> Iterator[str]:
    for i, pipeline in enumerate(definitions.pipelines):
        if pipeline.location in known:
            location = find(session, LOCATION, pipeline.location)
            if location.location_type is not LocationType.PROCESSING:
                yield str(NoProcessingLocation(f"pipelines[{i}].location", pipeline.location, location.location_type))
