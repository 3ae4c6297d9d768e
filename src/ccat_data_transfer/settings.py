from typing import ClassVar

from pydantic_settings import SettingsConfigDict

from ccat_service.servers import RedisSettings
from ccat_service.settings import ComponentSettings


class DataTransferSettings(RedisSettings, ComponentSettings):
    """Settings of the data-transfer's processes."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="CCAT_DATA_TRANSFER_")
