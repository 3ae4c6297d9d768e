from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field

from ccat_ops_db.definitions.words import Age, Identifier, Piece, Switch
from ccat_ops_db.plan.ages import age
from ccat_ops_db.states import OnMissing

_OBSERVATION_TIME: Final = "observation time"


def _place(text: str) -> str:
    pipeline, slash, step = text.partition("/")
    if not (pipeline and slash and step) or "/" in step:
        raise ValueError(f"`{text}` names no step of a pipeline, such as calibration/flat_field")
    return text


def _measure(text: str) -> str:
    if text != _OBSERVATION_TIME:
        raise ValueError(f"`{text}` is nothing to be near in; it is always `{_OBSERVATION_TIME}`")
    return text


class Auxiliary(Piece):
    """A rule that chooses calibrations: for each package the products of the nearest run of a step."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    name: Identifier
    place: Annotated[str, AfterValidator(_place), Field(alias="from")]
    """The step that makes them, as `pipeline/step`."""
    same: tuple[str, ...] = ()
    """Dimensions in which all packages of the run agree with the package."""
    nearest: Annotated[str, AfterValidator(_measure), Field(exclude=True)] = _OBSERVATION_TIME
    max_age: Age
    on_missing: OnMissing = OnMissing.WAIT
    redo_on_better: Switch = False

    @property
    def pipeline(self) -> str:
        """Pipeline of the step."""
        return self.place.partition("/")[0]

    @property
    def step(self) -> str:
        """Key of the step in its pipeline."""
        return self.place.partition("/")[2]

    @property
    def window(self) -> timedelta:
        """How far apart package and run may have been observed."""
        return age(self.max_age)
