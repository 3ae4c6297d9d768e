from pathlib import Path

import pytest
from pydantic import SecretStr

from ccat_data_transfer.settings import DataTransferSettings
from ccat_service.servers import OpsDbSettings, RedisSettings
from ccat_service.settings import ComponentSettings, Environment, SettingsError, current_environment
from ccat_workflow_manager.settings import WorkflowManagerSettings

PREFIX = "CCAT_WORKFLOW_MANAGER_"
SECRET = "correct horse battery staple"


@pytest.fixture(autouse=True)
def serves_a_location(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}PROCESSING_LOCATION_ID", "3")


def write_settings(text: str) -> None:
    Path("ccat.toml").write_text(text)


def error_of(component: type[ComponentSettings] = WorkflowManagerSettings) -> str:
    with pytest.raises(SettingsError) as caught:
        component.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_setting_but_the_served_locations_has_its_published_default() -> None:
    settings = WorkflowManagerSettings.load()
    assert settings.hpc_backend == "local"
    assert settings.pipeline_base_dir == Path("/data/pipelines")
    assert settings.processing_location_id == (3,)
    assert settings.k8s_namespace == "ccat-workflows"
    assert settings.slurm_partition == ""
    assert settings.sif_cache_dir == Path("/data/sif-cache")
    assert settings.url() == "redis://localhost:6379/0"


def test_a_variable_overrides_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write_settings('[workflow_manager]\nslurm_partition = "from file"\nhpc_backend = "slurm"')
    monkeypatch.setenv(f"{PREFIX}SLURM_PARTITION", "from variable")
    settings = WorkflowManagerSettings.load()
    assert (settings.slurm_partition, settings.hpc_backend) == ("from variable", "slurm")


def test_the_file_may_be_somewhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('[workflow_manager]\nk8s_namespace = "other"')
    monkeypatch.setenv("CCAT_CONFIG", str(tmp_path / "other.toml"))
    assert WorkflowManagerSettings.load().k8s_namespace == "other"


def test_the_command_that_tells_people_is_split_as_a_shell_would(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WorkflowManagerSettings.load().alert_command == ()
    monkeypatch.setenv(f"{PREFIX}ALERT_COMMAND", "mail -s 'CCAT data center' operators@example.org")
    assert WorkflowManagerSettings.load().alert_command == ("mail", "-s", "CCAT data center", "operators@example.org")


def test_people_are_told_over_http_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}ALERT_WEBHOOK", "file:///etc/passwd")
    assert error_of().startswith("CCAT_WORKFLOW_MANAGER_ALERT_WEBHOOK: ")


@pytest.mark.parametrize("written", ["3,4", " 3, 4 ,", "[3, 4]"])
def test_an_instance_may_serve_several_locations(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    if written.startswith("["):
        monkeypatch.delenv(f"{PREFIX}PROCESSING_LOCATION_ID")
        write_settings(f"[workflow_manager]\nprocessing_location_id = {written}")
    else:
        monkeypatch.setenv(f"{PREFIX}PROCESSING_LOCATION_ID", written)
    assert WorkflowManagerSettings.load().processing_location_id == (3, 4)


def test_a_missing_setting_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"{PREFIX}PROCESSING_LOCATION_ID")
    assert error_of() == (
        "CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID: must be set: "
        "ids of the DataLocations that this instance serves, separated by commas"
    )


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}HPC_BACKEND", "")
    assert WorkflowManagerSettings.load().hpc_backend == "local"


def test_a_misspelt_variable_stops_the_process_and_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}HPC_BACKED", "slurm")
    assert error_of() == (
        "CCAT_WORKFLOW_MANAGER_HPC_BACKED: no such setting. Did you mean `CCAT_WORKFLOW_MANAGER_HPC_BACKEND`?"
    )


def test_a_misspelt_key_names_file_and_section() -> None:
    write_settings('[workflow_manager]\nhpc_backed = "slurm"')
    assert error_of() == "ccat.toml [workflow_manager] hpc_backed: no such setting. Did you mean `hpc_backend`?"


def test_a_misspelt_section_is_found_although_no_component_reads_it() -> None:
    write_settings('[workflow-manager]\nhpc_backend = "slurm"')
    assert error_of() == "ccat.toml [workflow-manager]: no such setting. Did you mean `[workflow_manager]`?"


def test_an_invalid_value_names_the_place_where_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    write_settings('[workflow_manager]\nredis_port = "high"')
    assert error_of().startswith("ccat.toml [workflow_manager] redis_port: Input should be a valid integer")
    monkeypatch.setenv(f"{PREFIX}REDIS_PORT", "low")
    assert error_of().startswith("CCAT_WORKFLOW_MANAGER_REDIS_PORT: Input should be a valid integer")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[workflow_manager", "ccat.toml: not valid TOML"),
        ("workflow_manager = 1", "ccat.toml workflow_manager: must be a table"),
    ],
)
def test_a_broken_file_is_named(text: str, complaint: str) -> None:
    write_settings(text)
    assert error_of().startswith(complaint)


def test_a_file_that_was_asked_for_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCAT_CONFIG", "nowhere.toml")
    assert error_of() == "CCAT_CONFIG: the file nowhere.toml does not exist"


def test_the_longest_prefix_wins_so_a_variable_of_the_api_is_not_one_of_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CCAT_OPS_DB_API_PORT", "8000")
    monkeypatch.setenv("CCAT_OPS_DB_URL", "postgresql://localhost/x")
    assert OpsDbSettings.load().database_url().endswith("//localhost/x")


def test_a_process_checks_only_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}NONSENSE", "1")
    write_settings("[workflow_manager]\nnonsense = 1")
    assert DataTransferSettings.load().redis_port == 6379


def test_secrets_are_printed_neither_by_settings_nor_by_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}REDIS_PASSWORD", SECRET)
    assert SECRET not in repr(WorkflowManagerSettings.load())
    monkeypatch.setenv("CCAT_OPS_DB_URL", f"mysql://me:{SECRET}@host/x")
    with pytest.raises(SettingsError) as caught:
        OpsDbSettings.load()
    assert str(caught.value).startswith("CCAT_OPS_DB_URL: must be a PostgreSQL URL")
    shown: BaseException | None = caught.value
    while shown is not None:
        assert SECRET not in f"{shown!s}{shown!r}"
        shown = shown.__cause__ or shown.__context__


def test_without_a_database_the_error_says_how_to_get_one() -> None:
    settings = OpsDbSettings.load()
    with pytest.raises(SettingsError, match=r"^CCAT_OPS_DB_URL: .* `ccat up`, or set this variable"):
        settings.database_url()


def test_a_database_may_be_given_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for part, value in {"HOST": "db.example", "PASSWORD": "p@ss/word", "DATABASE": "ops"}.items():
        monkeypatch.setenv(f"CCAT_OPS_DB_DATABASE_POSTGRESQL_{part}", value)
    assert OpsDbSettings.load().database_url() == "postgresql+psycopg://ccat:p%40ss%2Fword@db.example:5432/ops"


def test_any_way_to_write_a_postgresql_url_will_do() -> None:
    assert OpsDbSettings(url=SecretStr("postgres://me@host/x")).database_url() == "postgresql+psycopg://me@host/x"


def test_the_redis_url_quotes_its_password() -> None:
    settings = RedisSettings(redis_password=SecretStr("a/b@c"), redis_tls=True)
    assert settings.url() == "rediss://:a%2Fb%40c@localhost:6379/0"


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"REDIS_CA_CERT": "ca.pem"}, f"{PREFIX}REDIS_CA_CERT: is given, but REDIS_TLS is not true"),
        ({"REDIS_TLS": "true", "REDIS_CA_CERT": "none.pem"}, f"{PREFIX}REDIS_CA_CERT: Path does not point to a file"),
        (
            {"REDIS_TLS": "true", "REDIS_CLIENT_CERT": "ca.pem"},
            f"{PREFIX[:-1]}: REDIS_CLIENT_CERT and REDIS_CLIENT_KEY must be given together",
        ),
    ],
)
def test_certificates_are_checked_at_the_start(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], complaint: str
) -> None:
    Path("ca.pem").touch()
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name, value)
    assert error_of() == complaint


def test_the_environment_is_localdev_unless_somebody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_environment() is Environment.LOCALDEV
    monkeypatch.setenv("ENV_FOR_DYNACONF", "Production")
    assert current_environment() is Environment.PRODUCTION
    monkeypatch.setenv("CCAT_ENV", "staging")
    assert current_environment() is Environment.STAGING
    monkeypatch.setenv("CCAT_ENV", "prod")
    with pytest.raises(SettingsError, match=r"^CCAT_ENV: must be one of localdev, staging, production$"):
        current_environment()
