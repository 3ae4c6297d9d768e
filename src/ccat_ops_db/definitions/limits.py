from typing import Any

from pydantic import Field, model_validator

from ccat_ops_db.definitions.words import MOST, Piece, WholeNumber
from ccat_ops_db.plan.windows import Window


class Limits(Piece):
    """How much of a pipeline may be under way; nothing of this makes a run necessary."""

    live: WholeNumber | None = Field(default=None, ge=1, le=MOST)
    """Most runs that are live at a time: from staging to collecting."""
    redo_live: WholeNumber | None = Field(default=None, ge=1, le=MOST)
    """Most of these that do again what was done before."""
    redo_between: Window | None = None
    """When such a run may start; left out: at any time."""
    created_per_minute: WholeNumber | None = Field(default=None, ge=1, le=MOST)

    @model_validator(mode="after")
    def _a_part_is_not_more_than_the_whole(self) -> "Limits":
        if self.live is not None and self.redo_live is not None and self.redo_live > self.live:
            raise ValueError("`redo_live` is more than `live`, of which it is a part; leave it out, or lower it")
        return self

    def as_stored(self) -> dict[str, Any]:
        """What of it is given, as JSON."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
