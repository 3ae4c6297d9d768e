"""Chains of three steps, one for each scan: how they are asked for, and what the jobs and the database say of them."""

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ccat_ops_db import models
from ccat_ops_db.session import DatabaseUnreachable, create_engine, transaction
from ccat_ops_db.states import RUN_MOVES, PhysicalCopyStatus, ProductState, RunStatus, Status
from ccat_ops_db.verbs.scans import NewFile, add_files, finish_scan, start_scan
from tests.end_to_end.installation import SOURCE, Installation
from tests.end_to_end.toy import install, write_definitions

STEPS: Final = ("first", "second", "third")
_START: Final = datetime(2026, 4, 5, 1, 0, tzinfo=UTC)
_RUN: Final = models.ExecutedReductionStep

_SCRIPT: Final = """
me="$WORKFLOW_STEP_NAME $WORKFLOW_SUB_GROUP_KEY $WORKFLOW_RUN_ID $WORKFLOW_ATTEMPT"
exec 9>>"{marks}/$WORKFLOW_STEP_NAME.$WORKFLOW_SUB_GROUP_KEY"
flock -n 9 || echo "overlap $me" >>"{marks}/all"
echo "start $me" >>"{marks}/all"
cat $(find -L "$WORKFLOW_INPUT_DIR" -type f) >"$WORKFLOW_OUTPUT_DIR/out.txt"
sleep {seconds}
echo "end $me" >>"{marks}/all"
"""
"""Software that copies its one input. While any process of it lives, it holds the lock of its step and sub-group."""


@dataclass
class Chains:
    """The chains of an installation."""

    installation: Installation
    seconds: float
    """How long a job takes."""
    texts: dict[uuid.UUID, str] = field(default_factory=dict)
    """What each scan observed."""

    def __post_init__(self) -> None:
        self._folder = self.installation.directory.parent
        self.marks = self._folder / "marks"
        self.marks.mkdir()
        url = self.installation.settings["ops_db"]["url"]
        self.engine = create_engine(url, application_name="chaos")
        self._next: tuple[uuid.UUID, str] | None = None

    def define(self) -> None:
        """One pipeline of three steps, each by scan."""
        install(self._folder / "toy-env")
        script = _SCRIPT.format(marks=self.marks, seconds=self.seconds)
        steps: list[dict[str, object]] = [
            {"key": key, "group_by": ["executed_obs_unit"], "software": "copy", "depends_on": list(above)}
            for key, above in zip(STEPS, ((), *((key,) for key in STEPS)), strict=False)
        ]
        write_definitions(self._folder / "chains.yaml", {"copy": script}, steps, pipeline="chains")
        self.installation.ccat("apply", "-f", self._folder / "chains.yaml")

    def observe(self) -> bool:
        """Take one scan, as an instrument does that asks again until it hears that it is registered."""
        number = len(self.texts)
        scan, text = self._next = self._next or (uuid.uuid4(), f"scan {number}")
        path = self.installation.instrument_disk / f"{scan}.txt"
        path.write_text(text)
        digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        file = NewFile(uuid.uuid5(scan, path.name), path.name, len(text), digest)
        at = _START + timedelta(minutes=number)
        try:
            with transaction(self.engine) as session:
                start_scan(session, scan, "orion", started_at=at)
                add_files(session, scan, [file], module="CHAI/LFA", location=SOURCE, by="CHAI")
                finish_scan(session, scan, ended_at=at + timedelta(seconds=50), expected_files=1)
        except (DatabaseUnreachable, DBAPIError):
            return False
        self.texts[scan], self._next = text, None
        return True

    def progress(self) -> Counter[RunStatus] | None:
        """How many runs have each status; None while the database is away."""
        try:
            with transaction(self.engine) as session:
                rows = session.execute(sa.select(_RUN.status, sa.func.count()).group_by(_RUN.status))
                return Counter(dict(rows.all()))
        except (DatabaseUnreachable, DBAPIError):
            return None

    def is_over(self, progress: Counter[RunStatus] | None) -> bool:
        """Whether all runs that there should be have ended well."""
        return progress == {RunStatus.COMPLETED: len(STEPS) * len(self.texts)}

    def marks_by_kind(self) -> dict[str, Counter[str]]:
        """What the jobs wrote: `start`, `end`, `overlap` → how often each step, sub-group, run and attempt did."""
        found: dict[str, Counter[str]] = {"start": Counter(), "end": Counter(), "overlap": Counter()}
        for line in (self.marks / "all").read_text().splitlines():
            kind, _, who = line.partition(" ")
            found[kind][who] += 1
        return found

    def attempts(self) -> int:
        """How many attempts the runs took."""
        with transaction(self.engine) as session:
            return session.scalars(sa.select(sa.func.count()).select_from(models.RunAttempt)).one()

    def wrong(self) -> list[str]:
        """One sentence for each thing that is not as it must be at the end."""
        with transaction(self.engine) as session:
            return [*self._wrong_runs(session), *self._wrong_products(session), *self._wrong_marks()]

    def _wrong_runs(self, session: sa.orm.Session) -> Iterator[str]:
        runs = session.scalars(sa.select(_RUN)).all()
        places = Counter((run.reduction_step_id, run.sub_group_key) for run in runs)
        yield from (f"{place} has {number} runs" for place, number in places.items() if number > 1)
        yield from (
            f"run {run.id} is {run.status}: {run.failure or run.waiting_for}"
            for run in runs
            if run.status is not RunStatus.COMPLETED
        )
        if len(runs) != len(STEPS) * len(self.texts):
            yield f"there are {len(runs)} runs for {len(self.texts)} scans"
        change = models.StatusChange
        moves = session.execute(
            sa.select(change.object_id, change.from_status, change.to_status)
            .where(change.noun == _RUN.__tablename__)
            .order_by(change.id)
        )
        at: dict[int, str] = {}
        for run_id, source, to in moves:
            if at.get(run_id, "pending") != source or to not in RUN_MOVES.get(RunStatus(source), ()):
                yield f"run {run_id} moved from {source} to {to}, and was {at.get(run_id)}"
            at[run_id] = to
        for noun in (models.StagingJob, models.LongTermArchiveTransfer):
            lost = session.scalars(sa.select(noun.id).where(noun.status != Status.COMPLETED)).all()
            yield from (f"{noun.__tablename__} {number} is not completed" for number in lost)

    def _wrong_products(self, session: sa.orm.Session) -> Iterator[str]:
        products = session.scalars(sa.select(models.DataProduct)).all()
        registered = Counter(one.run_id for one in products)
        if len(registered) != len(STEPS) * len(self.texts):
            yield f"{len(registered)} runs have products"
        yield from (f"run {run_id} has {number} products" for run_id, number in registered.items() if number > 1)
        texts = {f"executed_obs_unit={scan}": text for scan, text in self.texts.items()}
        for product in products:
            copies = session.scalars(sa.select(models.PhysicalCopy).filter_by(data_product_id=product.id)).all()
            if (product.state, [one.status for one in copies]) != (ProductState.CURRENT, [PhysicalCopyStatus.PRESENT]):
                yield f"product {product.id} is {product.state}, its copies {[one.status for one in copies]}"
                continue
            text = (self._place / copies[0].path).read_text()
            digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
            if (text, digest) != (texts[product.run.sub_group_key], product.checksum):
                yield f"product {product.id} holds {text!r}"
        inputs = session.scalars(sa.select(models.RunInput.run_id).distinct()).all()
        yield from (f"run {run_id} has no inputs" for run_id in sorted(registered.keys() - set(inputs)))

    @property
    def _place(self) -> Path:
        return self.installation.directory / "storage/cologne/ramses"

    def _wrong_marks(self) -> Iterator[str]:
        marks = self.marks_by_kind()
        yield from (f"two jobs at the same time: {who}" for who in marks["overlap"])
        yield from (f"started {number} times: {who}" for who, number in marks["start"].items() if number > 1)
        runs = Counter(who.rpartition(" ")[0] for who in marks["end"])
        if len(runs) != len(STEPS) * len(self.texts):
            yield f"{len(runs)} runs ended their software"
