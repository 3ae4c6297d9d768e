"""The tables of legal moves, written out as in the design: an edit of `states.py` by accident fails here."""

from collections.abc import Mapping
from enum import StrEnum

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models, states
from ccat_ops_db.moves import IllegalMove, advance
from ccat_ops_db.session import transaction

Table = Mapping[str, str]

RUN: Table = {
    "pending": "staging_data cancelled",
    "staging_data": "submitted pending failed cancelled",
    "submitted": "running collecting_results pending failed cancelled",
    "running": "collecting_results pending failed cancelled",
    "collecting_results": "completed failed",
    "failed": "pending",
    "completed": "",
    "cancelled": "",
}
PACKAGE: Table = {
    "waiting": "transferring failed",
    "transferring": "archived failed",
    "failed": "waiting transferring",
    "archived": "",
}
TRANSFER: Table = {
    "pending": "scheduled cancelled",
    "scheduled": "in_progress pending failed cancelled",
    "in_progress": "completed pending failed cancelled",
    "failed": "pending",
    "completed": "",
    "cancelled": "",
}
COPY: Table = {
    "writing": "present missing deleted",
    "present": "staged corrupt missing deletion_possible",
    "staged": "corrupt missing deletion_possible",
    "deletion_possible": "deletion_scheduled present staged",
    "deletion_scheduled": "deletion_in_progress deletion_possible",
    "deletion_in_progress": "deleted deletion_failed",
    "deletion_failed": "deletion_scheduled",
    "corrupt": "deleted",
    "missing": "deleted",
    "deleted": "",
}
PRODUCT: Table = {
    "current": "superseded orphaned withdrawn",
    "orphaned": "superseded withdrawn",
    "superseded": "withdrawn",
    "withdrawn": "current superseded trial",
    "trial": "withdrawn",
}
VERSION: Table = {
    "released": "retired withdrawn",
    "retired": "released withdrawn",
    "withdrawn": "retired",
}

DESIGN: Mapping[type[models.Base], tuple[type[StrEnum], Table]] = {
    models.ExecutedReductionStep: (states.RunStatus, RUN),
    models.RawDataPackage: (states.PackageState, PACKAGE),
    models.StagingJob: (states.Status, TRANSFER),
    models.DataTransfer: (states.Status, TRANSFER),
    models.LongTermArchiveTransfer: (states.Status, TRANSFER),
    models.ProductArchiveTransfer: (states.Status, TRANSFER),
    models.PhysicalCopy: (states.PhysicalCopyStatus, COPY),
    models.DataProduct: (states.ProductState, PRODUCT),
    models.ReductionSoftwareVersion: (states.VersionState, VERSION),
}


def _names(noun: object) -> str:
    return noun.__name__ if isinstance(noun, type) else str(noun)


def _accepts(session: Session, noun: type[models.Base], source: StrEnum, to: StrEnum) -> bool:
    try:
        advance(session, noun, [], expected=[source], to=to, because="a question", by="tests")
    except IllegalMove:
        return False
    return True


@pytest.mark.parametrize("noun", DESIGN, ids=_names)
def test_exactly_the_moves_of_the_design_are_legal(shared_engine: sa.Engine, noun: type[models.Base]) -> None:
    statuses, table = DESIGN[noun]
    with transaction(shared_engine) as session:
        legal = {source: {to for to in statuses if _accepts(session, noun, source, to)} for source in statuses}
    assert legal == {source: set(targets.split()) for source, targets in table.items()}


def test_every_noun_with_a_status_has_a_table_of_moves() -> None:
    with_status = {
        mapper.class_
        for mapper in models.Base.registry.mappers
        if {"status", "state"} & {column.name for column in mapper.local_table.columns} and mapper.inherits is None
    }
    assert with_status == set(DESIGN)


@pytest.mark.parametrize(
    ("noun", "final"),
    [(noun, source) for noun, (statuses, table) in DESIGN.items() for source in statuses if not table[source]],
    ids=_names,
)
def test_no_way_leads_out_of_a_final_status(shared_engine: sa.Engine, noun: type[models.Base], final: StrEnum) -> None:
    with transaction(shared_engine) as session:
        assert not any(_accepts(session, noun, final, to) for to in type(final))


def test_a_run_is_active_while_one_of_the_five_live_statuses_lasts() -> None:
    live = "pending staging_data submitted running collecting_results"
    assert " ".join(states.LIVE_RUN_STATUSES) == live


def test_a_transfer_is_live_until_it_ends() -> None:
    assert " ".join(states.LIVE_TRANSFER_STATUSES) == "pending scheduled in_progress"


@pytest.mark.parametrize(
    "moves",
    [
        states.RUN_MOVES,
        states.PACKAGE_MOVES,
        states.TRANSFER_MOVES,
        states.PHYSICAL_COPY_MOVES,
        states.PRODUCT_MOVES,
        states.VERSION_MOVES,
    ],
)
def test_a_table_speaks_of_one_kind_of_status_and_of_no_move_from_a_status_to_itself(
    moves: Mapping[StrEnum, frozenset[StrEnum]],
) -> None:
    mentioned = {type(status) for source, targets in moves.items() for status in (source, *targets)}
    assert len(mentioned) == 1
    assert not any(source in targets for source, targets in moves.items())
