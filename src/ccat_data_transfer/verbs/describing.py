from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from ccat_data_transfer.sidecar import (
    DescribedFile,
    DescribedInstrument,
    DescribedObservation,
    DescribedPackage,
    DescribedProgram,
    DescribedTar,
    DescribedTarget,
    LostFile,
    describe,
    render,
)
from ccat_ops_db import models

_Package, _Scan, _Unit, _Module = (
    models.RawDataPackage,
    models.ExecutedObsUnit,
    models.ObsUnit,
    models.InstrumentModule,
)
_File, _Part = models.RawDataFile, models.SubObservingProgram

_FILES: Final = (
    sa.select(
        sa.func.jsonb_agg(
            aggregate_order_by(
                sa.func.jsonb_build_object(
                    *("id", _File.id, "path", _File.relative_path),
                    *("size_bytes", _File.size_bytes, "checksum", _File.checksum),
                ),
                _File.relative_path,
            )
        )
    )
    .where(_File.raw_data_package_id == _Package.id)
    .correlate(_Package)
    .scalar_subquery()
)
_KNOWN: Final = (
    sa.select(
        _Package,
        _Scan,
        _Unit,
        models.ObservingProgram,
        _Part.short_name,
        models.Source,
        models.ObsMode.name,
        _Module,
        models.Instrument.name,
        models.Telescope.name,
        models.Observatory,
        _FILES,
    )
    .join(_Scan, _Scan.id == _Package.executed_obs_unit_id)
    .join(_Unit, _Unit.id == _Scan.obs_unit_id)
    .join(models.ObservingProgram, models.ObservingProgram.id == _Unit.observing_program_id)
    .outerjoin(_Part, _Part.id == _Unit.sub_observing_program_id)
    .join(models.Source, models.Source.id == _Unit.source_id)
    .join(models.ObsMode, models.ObsMode.id == _Unit.obs_mode_id)
    .join(_Module, _Module.id == _Package.instrument_module_id)
    .join(models.Instrument, models.Instrument.id == _Module.instrument_id)
    .join(models.Telescope, models.Telescope.id == _Scan.telescope_id)
    .join(models.Observatory, models.Observatory.id == models.Telescope.observatory_id)
)


def sidecar_of(session: Session, package_id: int, *, tar: DescribedTar) -> bytes:
    """The metadata sidecar of a packed raw package, as it lies beside its tar in an archive."""
    row = session.execute(_KNOWN.where(_Package.id == package_id)).one()
    package, scan, unit, program, part, source, mode, module, instrument, telescope, observatory, files = row
    return render(
        describe(
            _observation(scan, unit, mode, program=_program(program, part), target=_target(source)),
            _instrument(observatory, telescope, instrument, module=module),
            DescribedPackage(name=package.name, part=package.part, metadata=package.metadata_),
            tar=tar,
            files=_files(files),
            lost=_lost(session, package_id),
        )
    )


def _program(program: models.ObservingProgram, part: str | None) -> DescribedProgram:
    return DescribedProgram(short_name=program.short_name, name=program.name, part=part)


def _target(source: models.Source) -> DescribedTarget:
    fixed = source if isinstance(source, models.FixedSource) else None
    return DescribedTarget(
        name=source.name,
        type=source.type,
        ra_deg=fixed.ra_deg if fixed else None,
        dec_deg=fixed.dec_deg if fixed else None,
    )


def _observation(
    scan: models.ExecutedObsUnit, unit: models.ObsUnit, mode: str, *, program: DescribedProgram, target: DescribedTarget
) -> DescribedObservation:
    return DescribedObservation(
        id=scan.id,
        obs_unit=unit.name,
        program=program,
        target=target,
        mode=mode,
        line=unit.line_id,
        start=_in_utc(scan.started_at),
        end=_in_utc(scan.ended_at) if scan.ended_at else None,
        observing_night=scan.observing_night,
        expected_files=scan.expected_files,
        conditions=scan.conditions,
    )


def _instrument(
    observatory: models.Observatory, telescope: str, instrument: str, *, module: models.InstrumentModule
) -> DescribedInstrument:
    return DescribedInstrument(
        observatory=observatory.name,
        longitude_deg=observatory.longitude_deg,
        latitude_deg=observatory.latitude_deg,
        altitude_m=observatory.altitude_m,
        telescope=telescope,
        instrument=instrument,
        module=module.name,
        frequency_min_ghz=module.frequency_min_ghz,
        frequency_max_ghz=module.frequency_max_ghz,
    )


def _files(found: Sequence[dict[str, Any]] | None) -> list[DescribedFile]:
    return [DescribedFile(**file) for file in found or ()]


def _lost(session: Session, package_id: int) -> list[LostFile]:
    rows = session.execute(
        sa.select(
            *(_File.id, _File.relative_path.label("path"), _File.size_bytes, _File.checksum),
            *(_File.lost_at, _File.lost_because.label("because")),
        ).where(_File.lost_from_id == package_id)
    )
    return [LostFile(**{**row, "lost_at": _in_utc(row["lost_at"])}) for row in rows.mappings()]


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
