"""What runs read, as rows: the inputs of any number of runs at their locations, with a handful of questions."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.sets import is_given, once_more
from ccat_ops_db.states import DataProductType, PhysicalCopyStatus

_Run = models.ExecutedReductionStep
_Copy, _Taken = models.PhysicalCopy, models.RunInput
_Package, _Scan, _Unit, _Source = models.RawDataPackage, models.ExecutedObsUnit, models.ObsUnit, models.Source
_Module, _Instrument, _File = models.InstrumentModule, models.Instrument, models.RawDataFile
_Product, _Maker, _Step = models.DataProduct, once_more(_Run), models.ReductionStep

# Made once: to put one of these together takes longer than to execute it.
_COUNTED: Final = (
    sa.select(_Taken.run_id, sa.func.count()).where(is_given(_Taken.run_id, "runs")).group_by(_Taken.run_id)
)
_RAW: Final = (
    sa.select(
        _Taken.run_id,
        _Package.id.label("package_id"),
        _Package.name,
        _Scan.id.label("executed_obs_unit"),
        _Unit.name.label("obs_unit"),
        _Source.name.label("source"),
        (_Instrument.name + "/" + _Module.name).label("instrument_module"),
        _Copy.id.label("copy_id"),
        _Copy.path.label("copy_path"),
        _Copy.mtime_ns,
        _Copy.inode,
        _Taken.excluded_pixels,
    )
    .join(_Run, _Run.id == _Taken.run_id)
    .join(_Package, _Package.id == _Taken.raw_data_package_id)
    .join(_Copy, sa.and_(_Copy.raw_data_package_id == _Package.id, _Copy.data_location_id == _Run.data_location_id))
    .join(_Scan, _Scan.id == _Package.executed_obs_unit_id)
    .join(_Unit, _Unit.id == _Scan.obs_unit_id)
    .join(_Source, _Source.id == _Unit.source_id)
    .join(_Module, _Module.id == _Package.instrument_module_id)
    .join(_Instrument, _Instrument.id == _Module.instrument_id)
    .where(is_given(_Taken.run_id, "runs"), _Copy.status == PhysicalCopyStatus.STAGED)
    .order_by(_Package.name)
)
_FILES: Final = (
    sa.select(_File.raw_data_package_id, _File.relative_path, _File.size_bytes, _File.checksum)
    .where(is_given(_File.raw_data_package_id, "packages"))
    .order_by(_File.relative_path)
)
_PRODUCTS: Final = (
    sa.select(
        _Taken.run_id.label("taker"),
        _Product.id.label("product_id"),
        _Product.run_id,
        _Step.key.label("step"),
        _Maker.sub_group_path,
        _Product.relative_path,
        _Product.type,
        _Product.checksum,
        _Product.size_bytes,
        _Copy.id.label("copy_id"),
        _Copy.path.label("copy_path"),
        _Taken.name,
    )
    .join(_Run, _Run.id == _Taken.run_id)
    .join(_Product, _Product.id == _Taken.data_product_id)
    .join(_Copy, sa.and_(_Copy.data_product_id == _Product.id, _Copy.data_location_id == _Run.data_location_id))
    .join(_Maker, _Maker.id == _Product.run_id)
    .join(_Step, _Step.id == _Maker.reduction_step_id)
    .where(is_given(_Taken.run_id, "runs"), _Copy.status == PhysicalCopyStatus.PRESENT)
    .order_by(_Product.id, _Taken.name)
)


class InputGone(CcatError):
    """A run cannot start because some of its inputs have no copy at its location any more."""

    code = "input_gone"
    transient = True

    def __init__(self, run_id: int, location: str, *, found: int, wanted: int) -> None:
        super().__init__(
            f"only {found} of {wanted} inputs of run {run_id} have a copy at {location}: "
            "raw packages are staged again, a lost product is made again by its own step, and one that retention "
            "deleted by that if it says `recompute: true`, else by `ccat trigger PIPELINE --step STEP --force`"
        )


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """A file of a raw package."""

    path: str
    size_bytes: int
    checksum: str


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A raw package as it is unpacked where the run is."""

    package_id: int
    name: str
    executed_obs_unit: UUID
    obs_unit: str
    source: str
    instrument_module: str
    copy_id: int
    copy_path: str
    mtime_ns: int | None
    inode: int | None
    excluded_pixels: Sequence[str] | None
    """As they were when the inputs of the run were fixed; None: none."""
    files: Sequence[RawFile]


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product of another run, where the run is."""

    product_id: int
    run_id: int
    step: str
    sub_group_path: str
    relative_path: str
    type: DataProductType
    checksum: str
    size_bytes: int
    copy_id: int
    copy_path: str
    name: str | None
    """How the step calls it, of an auxiliary input."""


@dataclass(frozen=True)
class RunInputs:
    """Everything that a run reads."""

    raw: Sequence[Raw]
    products: Sequence[Product]
    wanted: int
    """How many there should be."""

    def require_all(self, run: _Run) -> None:
        """Raise InputGone where some have no copy at the location of the run."""
        found = len(self.raw) + len(self.products)
        if found != self.wanted:
            raise InputGone(run.id, run.location.name, found=found, wanted=self.wanted)


def inputs_of(session: Session, run_ids: Sequence[int]) -> Mapping[int, RunInputs]:
    """The inputs of runs that have a copy at their locations."""
    raw, products, wanted = _raw(session, run_ids), _products(session, run_ids), _wanted(session, run_ids)
    return {one: RunInputs(raw.get(one, ()), products.get(one, ()), wanted.get(one, 0)) for one in run_ids}


def _wanted(session: Session, run_ids: Iterable[int]) -> Mapping[int, int]:
    return dict(session.execute(_COUNTED, {"runs": list(run_ids)}).all())


def _raw(session: Session, run_ids: Iterable[int]) -> Mapping[int, Sequence[Raw]]:
    rows = session.execute(_RAW, {"runs": list(run_ids)}).all()
    files = _files(session, {row.package_id for row in rows})
    found: defaultdict[int, list[Raw]] = defaultdict(list)
    for row in rows:
        run_id, *_ = row
        told = {key: value for key, value in row._mapping.items() if key != "run_id"}  # noqa: SLF001 its public name
        found[run_id].append(Raw(**told, files=files.get(row.package_id, ())))
    return found


def _files(session: Session, package_ids: Iterable[int]) -> Mapping[int | None, Sequence[RawFile]]:
    """Raw files by their package, in the order of their paths."""
    found: defaultdict[int | None, list[RawFile]] = defaultdict(list)
    for package_id, path, size_bytes, checksum in session.execute(_FILES, {"packages": list(package_ids)}):
        found[package_id].append(RawFile(path=path, size_bytes=size_bytes, checksum=checksum))
    return found


def _products(session: Session, run_ids: Iterable[int]) -> Mapping[int, Sequence[Product]]:
    """Upstream and auxiliary products."""
    rows = session.execute(_PRODUCTS, {"runs": list(run_ids)})
    found: defaultdict[int, list[Product]] = defaultdict(list)
    for row in rows:
        told = dict(row._mapping)  # noqa: SLF001 its public name
        found[told.pop("taker")].append(Product(**told))
    return found
