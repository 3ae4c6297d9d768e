"""Fixtures: the simulated scans are made and reduced once for all tests."""

from pathlib import Path

import pytest
from camera import Camera, Small, Workshop, observe_nights, small_scans
from harness import Bench, Observation, observe, write_small_raw


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="session")
def seed_one(tmp_path_factory: pytest.TempPathFactory) -> Observation:
    return observe(tmp_path_factory.mktemp("seed-1"), 1)


@pytest.fixture(scope="session")
def seed_two(tmp_path_factory: pytest.TempPathFactory) -> Observation:
    return observe(tmp_path_factory.mktemp("seed-2"), 2)


@pytest.fixture
def small_raw(tmp_path: Path) -> Path:
    """A raw scan of four pixels and thirty-two channels, with all that the layout asks for."""
    return write_small_raw(tmp_path / "small.fits")


@pytest.fixture(scope="session")
def old_opacity(seed_one: Observation) -> Path:
    """Scan 1 of the first seed, baselined after a calibration with an opacity that is long out of date."""
    return seed_one.baseline(seed_one.calibrate(1, opacity=0.4))


@pytest.fixture(scope="session")
def map_with_old_opacity(seed_one: Observation, old_opacity: Path) -> Path:
    """Directory of the products that `grid` makes of that scan alone."""
    return seed_one.grid(old_opacity)


@pytest.fixture(scope="session")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Camera:
    """Two nights of the first seed."""
    return observe_nights(tmp_path_factory.mktemp("camera-1"), 1, nights=2)


@pytest.fixture(scope="session")
def other_camera(tmp_path_factory: pytest.TempPathFactory) -> Camera:
    """A night of another seed, with other faults."""
    return observe_nights(tmp_path_factory.mktemp("camera-3"), 3, nights=1)


@pytest.fixture(scope="session")
def small(camera: Camera, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Scans of a few detectors and samples, of the first night."""
    return small_scans(camera, tmp_path_factory.mktemp("small"))


@pytest.fixture
def shop(bench: Bench, small: Small) -> Workshop:
    return Workshop(bench, small)
