from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ccat_ops_db.models.base import Base, ClientUuid, CreatedAt, Identity, Json, is_not_negative
from ccat_ops_db.models.observatory import InstrumentModuleConfiguration, Telescope


class ObservingProgram(Base):
    """A survey or project that asks for observations."""

    __tablename__ = "observing_program"

    id: Mapped[Identity]
    short_name: Mapped[str] = mapped_column(unique=True, comment="Name that people use, such as GEco or Cal.")
    name: Mapped[str] = mapped_column(comment="Full name.")
    description: Mapped[str] = mapped_column(server_default="", comment="What it is about.")


class SubObservingProgram(Base):
    """A part of an observing program."""

    __tablename__ = "sub_observing_program"
    __table_args__ = (sa.UniqueConstraint("observing_program_id", "short_name"),)

    id: Mapped[Identity]
    observing_program_id: Mapped[int] = mapped_column(
        sa.ForeignKey("observing_program.id"), comment="Program that it is part of."
    )
    short_name: Mapped[str] = mapped_column(comment="Name within the program.")
    description: Mapped[str] = mapped_column(server_default="", comment="What it is about.")

    observing_program: Mapped[ObservingProgram] = relationship()


class Source(Base):
    """Something to point at; one of the three kinds below."""

    __tablename__ = "source"
    __mapper_args__ = {"polymorphic_on": "type"}
    __table_args__: Any = (
        sa.CheckConstraint(
            "type IN ('fixed_source', 'solar_system_object', 'constant_elevation_source')", name="type_is_known"
        ),
    )

    id: Mapped[Identity]
    type: Mapped[str] = mapped_column(sa.String(32), comment="Which of the kinds it is.")
    name: Mapped[str] = mapped_column(unique=True, comment="Name that people use; a label, not an identity.")


class FixedSource(Source):
    """A source with fixed celestial coordinates."""

    __tablename__ = "fixed_source"
    __mapper_args__ = {"polymorphic_identity": "fixed_source", "polymorphic_load": "inline"}
    __table_args__ = (
        sa.CheckConstraint("ra_deg >= 0 AND ra_deg < 360", name="ra_in_range"),
        sa.CheckConstraint("dec_deg BETWEEN -90 AND 90", name="dec_in_range"),
        sa.Index("ix_fixed_source_dec_deg", "dec_deg"),  # narrows a cone down to a band of the sky
    )

    id: Mapped[int] = mapped_column(sa.ForeignKey("source.id"), primary_key=True, comment="The source that it details.")
    ra_deg: Mapped[float] = mapped_column(comment="Right ascension in degrees, ICRS.")
    dec_deg: Mapped[float] = mapped_column(comment="Declination in degrees, ICRS.")


class SolarSystemObject(Source):
    """A planet, moon, asteroid or comet."""

    __tablename__ = "solar_system_object"
    __mapper_args__ = {"polymorphic_identity": "solar_system_object", "polymorphic_load": "inline"}

    id: Mapped[int] = mapped_column(sa.ForeignKey("source.id"), primary_key=True, comment="The source that it details.")
    naif_id: Mapped[int | None] = mapped_column(comment="NAIF body number of the ephemerides.")


class ConstantElevationSource(Source):
    """A strip of sky that is scanned at one elevation."""

    __tablename__ = "constant_elevation_source"
    __mapper_args__ = {"polymorphic_identity": "constant_elevation_source", "polymorphic_load": "inline"}
    __table_args__ = (sa.CheckConstraint("elevation_deg BETWEEN 0 AND 90", name="elevation_in_range"),)

    id: Mapped[int] = mapped_column(sa.ForeignKey("source.id"), primary_key=True, comment="The source that it details.")
    elevation_deg: Mapped[float] = mapped_column(comment="Elevation in degrees.")
    azimuth_min_deg: Mapped[float | None] = mapped_column(comment="Start of the azimuth range in degrees.")
    azimuth_max_deg: Mapped[float | None] = mapped_column(comment="End of the azimuth range in degrees.")


class ObsMode(Base):
    """An observing strategy, such as on-the-fly or total power."""

    __tablename__ = "obs_mode"

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="Short name, such as OTF.")
    description: Mapped[str] = mapped_column(server_default="", comment="What it is, for people.")


class ObservationConfiguration(Base):
    """A named set of observing parameters."""

    __tablename__ = "observation_configuration"

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="Name that people use.")
    parameters: Mapped[Json] = mapped_column(server_default=sa.text("'{}'"), comment="The parameters.")


obs_unit_module_configuration = sa.Table(
    "obs_unit_module_configuration",
    Base.metadata,
    sa.Column("obs_unit_id", sa.ForeignKey("obs_unit.id"), primary_key=True, comment="The observation."),
    sa.Column(
        "instrument_module_configuration_id",
        sa.ForeignKey("instrument_module_configuration.id"),
        primary_key=True,
        comment="A module set-up that it uses.",
    ),
)


class ObsUnit(Base):
    """A planned observation: a source, a mode, a configuration."""

    __tablename__ = "obs_unit"

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="Name that instruments use to say what they execute.")
    observing_program_id: Mapped[int] = mapped_column(
        sa.ForeignKey("observing_program.id"), index=True, comment="Program that asks for it."
    )
    sub_observing_program_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("sub_observing_program.id"), index=True, comment="Part of the program, if it has parts."
    )
    source_id: Mapped[int] = mapped_column(sa.ForeignKey("source.id"), index=True, comment="What is observed.")
    obs_mode_id: Mapped[int] = mapped_column(sa.ForeignKey("obs_mode.id"), comment="How it is observed.")
    observation_configuration_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("observation_configuration.id"), comment="Its observing parameters."
    )
    line_id: Mapped[str | None] = mapped_column(comment="Spectral line, such as CO43.")

    observing_program: Mapped[ObservingProgram] = relationship()
    source: Mapped[Source] = relationship()
    obs_mode: Mapped[ObsMode] = relationship()
    module_configurations: Mapped[list[InstrumentModuleConfiguration]] = relationship(
        secondary=obs_unit_module_configuration
    )


class ExecutedObsUnit(Base):
    """A scan: one execution of a planned observation."""

    __tablename__ = "executed_obs_unit"
    __table_args__ = (
        is_not_negative("expected_files"),
        sa.CheckConstraint("ended_at >= started_at", name="ends_after_start"),
        sa.Index("ix_executed_obs_unit_started_at", "started_at"),
        # When it was taken, as far as is known: its start, and what follows until its end.
        sa.Index(
            "ix_executed_obs_unit_time",
            sa.text(
                "(CASE WHEN ended_at > started_at THEN tstzrange(started_at, ended_at)"
                " ELSE tstzrange(started_at, started_at, '[]') END)"
            ),
            postgresql_using="gist",
        ),
        sa.Index("ix_executed_obs_unit_unfinished", "id", postgresql_where=sa.text("ended_at IS NULL")),
        sa.Index("ix_executed_obs_unit_lacks_files", "id", postgresql_where=sa.text("lacks_files")),
    )

    id: Mapped[ClientUuid]
    obs_unit_id: Mapped[int] = mapped_column(sa.ForeignKey("obs_unit.id"), index=True, comment="What was executed.")
    telescope_id: Mapped[int] = mapped_column(sa.ForeignKey("telescope.id"), comment="Where it was executed.")
    started_at: Mapped[datetime] = mapped_column(comment="Start of the scan.")
    ended_at: Mapped[datetime | None] = mapped_column(comment="End of the scan; NULL while it goes on.")
    observing_night: Mapped[date] = mapped_column(
        index=True, comment="Local date at whose noon the night of `started_at` began; see observing_night()."
    )
    expected_files: Mapped[int | None] = mapped_column(comment="Number of raw files that belong to it, when known.")
    lacks_files: Mapped[bool] = mapped_column(
        server_default=sa.false(),
        comment="Whether fewer raw files were registered than it was told to have, when this was last asked.",
    )
    conditions: Mapped[Json] = mapped_column(server_default=sa.text("'{}'"), comment="Weather and telescope state.")
    created_at: Mapped[CreatedAt]

    obs_unit: Mapped[ObsUnit] = relationship()
    telescope: Mapped[Telescope] = relationship()
