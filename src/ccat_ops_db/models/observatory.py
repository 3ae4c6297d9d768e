import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ccat_ops_db.models.base import Base, Identity, Json, is_positive


class Observatory(Base):
    """A place with telescopes."""

    __tablename__ = "observatory"
    __table_args__ = (
        sa.CheckConstraint("longitude_deg BETWEEN -180 AND 180", name="longitude_in_range"),
        sa.CheckConstraint("latitude_deg BETWEEN -90 AND 90", name="latitude_in_range"),
    )

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="Full name.")
    longitude_deg: Mapped[float] = mapped_column(
        comment="East-positive longitude in degrees; decides the observing night."
    )
    latitude_deg: Mapped[float] = mapped_column(comment="North-positive latitude in degrees.")
    altitude_m: Mapped[float] = mapped_column(comment="Altitude above sea level in metres.")


class Telescope(Base):
    """A telescope of an observatory."""

    __tablename__ = "telescope"

    id: Mapped[Identity]
    observatory_id: Mapped[int] = mapped_column(
        sa.ForeignKey("observatory.id"), index=True, comment="Observatory that it belongs to."
    )
    name: Mapped[str] = mapped_column(unique=True, comment="Short name, such as FYST.")
    description: Mapped[str] = mapped_column(server_default="", comment="What it is, for people.")

    observatory: Mapped[Observatory] = relationship()


class DataClass(Base):
    """How safe raw data have to be before their source goes; `raw` is the class of instruments that name none."""

    __tablename__ = "data_class"
    __table_args__ = (is_positive("min_verified_archive_copies"),)

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="Name, such as raw or calibration.")
    min_verified_archive_copies: Mapped[int] = mapped_column(
        server_default="1", comment="Verified archive copies that a package needs before copies elsewhere may go."
    )


class Instrument(Base):
    """An instrument mounted on a telescope."""

    __tablename__ = "instrument"

    id: Mapped[Identity]
    telescope_id: Mapped[int] = mapped_column(
        sa.ForeignKey("telescope.id"), index=True, comment="Telescope that carries it."
    )
    name: Mapped[str] = mapped_column(unique=True, comment="Name, such as CHAI or Prime-Cam.")
    description: Mapped[str] = mapped_column(server_default="", comment="What it is, for people.")
    available: Mapped[bool] = mapped_column(server_default=sa.true(), comment="Installed and operational.")
    data_class_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_class.id"), comment="Class of its raw data; NULL: `raw`."
    )

    telescope: Mapped[Telescope] = relationship()


class InstrumentModule(Base):
    """The part of an instrument that produces data; every raw file belongs to one."""

    __tablename__ = "instrument_module"
    __table_args__ = (sa.UniqueConstraint("instrument_id", "name"),)

    id: Mapped[Identity]
    instrument_id: Mapped[int] = mapped_column(sa.ForeignKey("instrument.id"), comment="Instrument that it is part of.")
    name: Mapped[str] = mapped_column(comment="Name within the instrument, such as LFA.")
    description: Mapped[str] = mapped_column(server_default="", comment="What it is, for people.")
    frequency_min_ghz: Mapped[float | None] = mapped_column(comment="Lower end of its band in GHz.")
    frequency_max_ghz: Mapped[float | None] = mapped_column(comment="Upper end of its band in GHz.")

    instrument: Mapped[Instrument] = relationship()


class InstrumentModuleConfiguration(Base):
    """A named set-up of a module, chosen when an observation is planned."""

    __tablename__ = "instrument_module_configuration"
    __table_args__ = (sa.UniqueConstraint("instrument_module_id", "name"),)

    id: Mapped[Identity]
    instrument_module_id: Mapped[int] = mapped_column(
        sa.ForeignKey("instrument_module.id"), comment="Module that it sets up."
    )
    name: Mapped[str] = mapped_column(comment="Name within the module.")
    parameters: Mapped[Json] = mapped_column(
        server_default=sa.text("'{}'"), comment="The set-up, in the module's terms."
    )

    instrument_module: Mapped[InstrumentModule] = relationship()
