import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import quote

import sqlalchemy as sa
from pydantic import BaseModel, Field, FilePath, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from ccat_service.settings import ComponentSettings, SettingsError

if TYPE_CHECKING:
    from redis import Redis

_DRIVER = "postgresql+psycopg"


class OpsDbSettings(ComponentSettings):
    """Where the operations database is: one URL, or its parts."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="CCAT_OPS_DB_")

    url: SecretStr | None = None
    database_postgresql_host: str | None = None
    database_postgresql_port: int = 5432
    database_postgresql_database: str = "ccat_ops_db"
    database_postgresql_user: str = "ccat"
    database_postgresql_password: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _must_be_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            _postgresql_url(url.get_secret_value())
        return url

    def database_url(self) -> str:
        """SQLAlchemy URL, with the password: not for printing; `url` wins over the parts. Raises SettingsError."""
        if self.url is not None:
            return _postgresql_url(self.url.get_secret_value()).render_as_string(hide_password=False)
        if self.database_postgresql_host is None:
            raise SettingsError(
                "CCAT_OPS_DB_URL",
                "no operations database is named; start the embedded stack with `ccat up`, or set this variable "
                "(or CCAT_OPS_DB_DATABASE_POSTGRESQL_HOST and its companions)",
            )
        password = self.database_postgresql_password
        return sa.URL.create(
            _DRIVER,
            host=self.database_postgresql_host,
            port=self.database_postgresql_port,
            database=self.database_postgresql_database,
            username=self.database_postgresql_user,
            password=password.get_secret_value() if password else None,
        ).render_as_string(hide_password=False)


class RedisSettings(BaseModel):
    """Where Redis is and how to trust it; mixed into the settings of each component that uses it.

    With `redis_tls` the server's certificate and name are always verified: against `redis_ca_cert`, or the system's
    authorities where that is not set.
    """

    redis_host: str = "localhost"
    redis_port: int = Field(default=6379, ge=1, le=65535)
    redis_password: SecretStr | None = None
    redis_tls: bool = False
    redis_ca_cert: FilePath | None = None
    redis_client_cert: FilePath | None = None
    redis_client_key: FilePath | None = None

    @field_validator("redis_ca_cert", "redis_client_cert", "redis_client_key")
    @classmethod
    def _needs_tls(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and not info.data.get("redis_tls"):
            raise ValueError("is given, but REDIS_TLS is not true")
        return path

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.redis_client_cert is None) != (self.redis_client_key is None):
            raise ValueError("REDIS_CLIENT_CERT and REDIS_CLIENT_KEY must be given together")
        return self

    def url(self) -> str:
        """`redis://` or `rediss://` URL, with the password: not for printing."""
        scheme = "rediss" if self.redis_tls else "redis"
        login = f":{quote(self.redis_password.get_secret_value(), safe='')}@" if self.redis_password else ""
        return f"{scheme}://{login}{self.redis_host}:{self.redis_port}/0"

    def tls_options(self) -> dict[str, Any]:
        """Arguments that both redis-py and the Celery broker understand; empty without TLS."""
        if not self.redis_tls:
            return {}
        files = {
            "ssl_ca_certs": self.redis_ca_cert,
            "ssl_certfile": self.redis_client_cert,
            "ssl_keyfile": self.redis_client_key,
        }
        return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True} | {
            option: str(path) for option, path in files.items() if path is not None
        }

    def client(self, name: str) -> "Redis":
        """Redis client that gives up within seconds where Redis is away; nothing is connected yet."""
        from redis import Redis  # noqa: PLC0415 a tenth of the start of every command that only reads the database
        from redis.backoff import NoBackoff  # noqa: PLC0415 as above
        from redis.retry import Retry  # noqa: PLC0415 as above

        return Redis(
            host=self.redis_host,
            port=self.redis_port,
            password=self.redis_password.get_secret_value() if self.redis_password else None,
            client_name=name.replace(" ", "-"),
            socket_connect_timeout=1,
            socket_timeout=2,
            retry=Retry(NoBackoff(), 1),
            ssl=self.redis_tls,
            **self.tls_options(),
        )


def _postgresql_url(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() not in {"postgresql", "postgres"}:
        # Not chained and not quoted: the URL may hold a password.
        raise ValueError("must be a PostgreSQL URL: postgresql://user:password@host:port/database") from None
    return url.set(drivername=_DRIVER)
