import os
import tomllib
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import pydantic
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from ccat_ops_db.errors import CcatError
from ccat_ops_db.naming import nearest

COMPONENT_PREFIXES: Final = (
    "CCAT_OPS_DB_API_",
    "CCAT_OPS_DB_",
    "CCAT_WORKFLOW_MANAGER_",
    "CCAT_DATA_TRANSFER_",
)
_DEFAULT_FILE: Final = "ccat.toml"


class SettingsError(CcatError):
    """A setting is unknown, missing or invalid; the sentence names the variable, or the file and key."""

    code = "invalid_setting"

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")


class UnknownSettingError(SettingsError):
    """A name that no setting has, with the nearest one that exists."""

    def __init__(self, name: str, *, known: Collection[str], place: str = "") -> None:
        super().__init__(f"{place}{name}", f"no such setting.{nearest(name, known)}")


class Environment(StrEnum):
    """Where this installation runs; destructive commands refuse in production."""

    LOCALDEV = "localdev"
    STAGING = "staging"
    PRODUCTION = "production"


def current_environment() -> Environment:
    """The environment named by CCAT_ENV (ENV_FOR_DYNACONF is accepted too), localdev where neither is set."""
    for variable in ("CCAT_ENV", "ENV_FOR_DYNACONF"):
        if value := os.environ.get(variable):
            return _environment_named(value.lower(), variable)
    return Environment.LOCALDEV


class ComponentSettings(BaseSettings):
    """Base of one component's settings: environment variables override the component's section of the TOML file.

    A subclass sets `env_prefix` to one of COMPONENT_PREFIXES; the section is named like it: CCAT_OPS_DB_ and [ops_db].
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    @classmethod
    def load(cls) -> Self:
        """Settings of this process; raises SettingsError in one line that never contains a value."""
        _refuse_unknown_variables(cls.env_prefix(), cls.model_fields)
        try:
            return cls()
        except pydantic.ValidationError as error:
            # Not chained: the original would show what was given, and that may be a secret.
            raise cls._explain(error.errors(include_input=False, include_context=False, include_url=False)[0]) from None

    @classmethod
    def env_prefix(cls) -> str:
        """What the names of this component's variables begin with."""
        return str(cls.model_config["env_prefix"])

    @classmethod
    def section(cls) -> str:
        """Name of this component's table in the TOML file."""
        return _section(cls.env_prefix())

    @classmethod
    def settings_customise_sources(  # type: ignore[override]  # pydantic-settings passes all but the class by name
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **sources: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over variables, and variables over the file."""
        return init_settings, sources["env_settings"], InitSettingsSource(settings_cls, _read_section(cls.section()))

    @classmethod
    def _explain(cls, detail: ErrorDetails) -> SettingsError:
        key = str(detail["loc"][0]) if detail["loc"] else ""
        place = f"{_file()} [{cls.section()}] "
        if detail["type"] == "extra_forbidden":
            return UnknownSettingError(key, known=cls.model_fields, place=place)
        variable = cls.env_prefix() + key.upper()
        if detail["type"] == "missing":
            return SettingsError(variable, f"must be set: {cls.model_fields[key].description or key}")
        problem = detail["msg"].removeprefix("Value error, ")
        in_file = not os.environ.get(variable) and key in _read_section(cls.section())
        return SettingsError(f"{place}{key}" if in_file else variable.removesuffix("_"), problem)


def _environment_named(value: str, variable: str) -> Environment:
    try:
        return Environment(value)
    except ValueError:
        raise SettingsError(variable, f"must be one of {', '.join(Environment)}") from None


def _section(prefix: str) -> str:
    return prefix.removeprefix("CCAT_").removesuffix("_").lower()


def _refuse_unknown_variables(prefix: str, fields: Mapping[str, object]) -> None:
    longer = tuple(other for other in COMPONENT_PREFIXES if other != prefix and other.startswith(prefix))
    known = {prefix + field.upper() for field in fields}
    for name in sorted(os.environ):
        if name.startswith(prefix) and not name.startswith(longer) and name not in known:
            raise UnknownSettingError(name, known=known)


def _file() -> Path:
    return Path(os.environ.get("CCAT_CONFIG") or _DEFAULT_FILE)


def _read_section(section: str) -> dict[str, Any]:
    tables = _read_file(_file())
    known = {_section(prefix) for prefix in COMPONENT_PREFIXES}
    for name, table in tables.items():
        if name not in known:
            raise UnknownSettingError(f"[{name}]", known=[f"[{section}]" for section in known], place=f"{_file()} ")
        if not isinstance(table, dict):
            raise SettingsError(f"{_file()} {name}", f"must be a table, written [{name}]")
    found: dict[str, Any] = tables.get(section, {})
    return found


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if os.environ.get("CCAT_CONFIG"):
            raise SettingsError("CCAT_CONFIG", f"the file {path} does not exist") from None
        return {}
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(str(path), f"not valid TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(str(path), f"cannot be read: {error}") from None
