"""Names that users import, and the nouns that the design knows."""

import importlib

import pytest
import sqlalchemy as sa

from ccat_ops_db import models

PUBLISHED = [
    "Pipeline",
    "ReductionStep",
    "ExecutedReductionStep",
    "DataProduct",
    "ReductionSoftware",
    "ReductionSoftwareVersion",
    "ReductionStepConfig",
    "DataGrouping",
    "RawDataFile",
    "RawDataPackage",
    "DataTransferPackage",
    "ObsUnit",
    "ExecutedObsUnit",
    "Source",
    "InstrumentModule",
    "DataLocation",
    "PhysicalCopy",
    "StagingJob",
    "RunStatus",
    "TriggerType",
    "DataProductType",
]

PLANNING = [
    "Observatory",
    "Telescope",
    "Instrument",
    "InstrumentModule",
    "InstrumentModuleConfiguration",
    "ObservingProgram",
    "SubObservingProgram",
    "ObsUnit",
    "Source",
    "FixedSource",
    "SolarSystemObject",
    "ConstantElevationSource",
    "ObsMode",
    "ExecutedObsUnit",
]
DATA_AND_PLACES = [
    "RawDataFile",
    "RawDataPackage",
    "DataTransferPackage",
    "Site",
    "DataLocation",
    "PhysicalCopy",
    "StagingJob",
    "DataTransfer",
    "LongTermArchiveTransfer",
    "ProductArchiveTransfer",
]
PIPELINES = [
    "Pipeline",
    "ReductionStep",
    "DataGrouping",
    "ReductionSoftware",
    "ReductionSoftwareVersion",
    "ReductionStepConfig",
    "ExecutedReductionStep",
    "RunAttempt",
    "DataProduct",
]
ACCESS = ["User", "Role", "Permission", "ApiToken", "AuditEntry", "Installation"]

PUBLISHED_VALUES = {
    "RunStatus": "pending staging_data submitted running collecting_results completed failed cancelled",
    "TriggerType": "continuous cron manual",
    "DataProductType": "science qa_metric plot statistics log intermediate",
    "PackageState": "waiting transferring archived failed",
    "Status": "pending scheduled in_progress completed failed cancelled",
    "PhysicalCopyStatus": (
        "writing present staged corrupt missing deletion_possible deletion_scheduled deletion_in_progress "
        "deletion_failed deleted"
    ),
    "LocationType": "source buffer long_term_archive processing",
    "StorageType": "disk s3 tape",
    "ProductState": "current superseded orphaned withdrawn trial",
    "VersionPolicy": "exact compatible latest",
    "RunReason": "missing inputs_changed recipe_changed upstream_changed auxiliary_changed invalidated requested "
    "recompute",
    "FailureClass": "infrastructure resources payload data configuration",
    "BackendName": "local slurm kubernetes",
    "Runtime": "process apptainer",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_name_is_imported_from_the_models(name: str) -> None:
    assert name in models.__all__
    assert hasattr(models, name)


@pytest.mark.parametrize("name", ["DatabaseConnection", "HealthCheck", "StructuredLogger", "make_celery_task"])
def test_a_published_name_is_imported_from_the_service_package(name: str) -> None:
    service = importlib.import_module("ccat_service")
    assert name in service.__all__
    assert callable(getattr(service, name))


@pytest.mark.parametrize("name", [*PLANNING, *DATA_AND_PLACES, *PIPELINES, *ACCESS])
def test_a_noun_of_the_design_has_a_table(name: str) -> None:
    assert isinstance(getattr(models, name).__table__, sa.Table)


@pytest.mark.parametrize("name", [name for name in models.__all__ if name != "Base"])
def test_what_is_exported_says_what_it_is(name: str) -> None:
    exported = getattr(models, name)
    assert isinstance(exported, sa.Table) or exported.__doc__


def test_every_table_has_an_exported_name() -> None:
    exported = [getattr(models, name) for name in models.__all__]
    tables = {
        table.name for table in (getattr(one, "__table__", one) for one in exported) if isinstance(table, sa.Table)
    }
    assert tables == set(models.Base.metadata.tables)


@pytest.mark.parametrize("name", PUBLISHED_VALUES)
def test_an_enum_has_its_published_values(name: str) -> None:
    assert " ".join(getattr(models, name)) == PUBLISHED_VALUES[name]
