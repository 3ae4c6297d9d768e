import tomllib
from datetime import timedelta
from pathlib import Path

import pytest

from ccat.stack.backoff import HEALTHY_AFTER, quick_deaths, restart_delay
from ccat.stack.logs import rotate
from ccat.stack.processes import describe_end
from ccat.stack.redis import RedisAddress
from ccat.stack.settings_file import StackSettings, as_toml


def test_restarts_come_at_once_then_after_1_2_4_up_to_30_seconds() -> None:
    assert [restart_delay(deaths).total_seconds() for deaths in range(9)] == [0, 0, 1, 2, 4, 8, 16, 30, 30]
    assert restart_delay(10_000) == timedelta(seconds=30)


def test_a_minute_of_health_ends_a_crash_loop() -> None:
    assert quick_deaths(5, timedelta(seconds=1)) == 6
    assert restart_delay(quick_deaths(5, HEALTHY_AFTER)) == timedelta(0)
    assert restart_delay(quick_deaths(quick_deaths(5, HEALTHY_AFTER), timedelta(seconds=1))) == timedelta(0)


@pytest.mark.parametrize("directory", ["/plain", '/with "quotes" and \\', "/ñ/😀/\ttab"])
def test_settings_survive_the_file_whatever_the_path(directory: str) -> None:
    settings = StackSettings(
        database_url=f"postgresql+psycopg://ccat:x@/ccat?host={directory}",
        redis=RedisAddress("127.0.0.1", 20_000, "secret"),
        pipeline_base_dir=Path(directory),
        sif_cache_dir=Path(directory) / "images",
    )
    found = tomllib.loads(as_toml(settings))
    assert found["ops_db"]["url"] == settings.database_url
    assert found["workflow_manager"]["pipeline_base_dir"] == directory
    assert Path(found["workflow_manager"]["sif_cache_dir"]) == Path(directory) / "images"
    assert found["data_transfer"] == {"redis_host": "127.0.0.1", "redis_port": 20_000, "redis_password": "secret"}
    assert "processing_location_id" not in found["workflow_manager"]


def test_an_end_is_told_in_words() -> None:
    assert describe_end(3) == "ended with exit code 3"
    assert describe_end(-9) == "was killed by SIGKILL"


def test_a_log_that_grew_too_large_moves_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    with log.open("a") as writer:
        writer.write("old\n")
        writer.flush()
        rotate(log, largest=3)
        writer.write("new\n")
    assert log.read_text() == "new\n"
    assert (tmp_path / "service.log.1").read_text() == "old\n"
    rotate(log, largest=4)
    assert log.read_text() == "new\n"
