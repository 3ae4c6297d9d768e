import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from ccat_workflow_manager.execution import prepare as preparing
from ccat_workflow_manager.execution.command import Execution
from ccat_workflow_manager.execution.manifest import Manifest
from ccat_workflow_manager.execution.prepare import (
    AttemptHasStarted,
    Input,
    InputChanged,
    InputsCollide,
    Recorded,
    prepare,
)


@pytest.fixture
def inputs(tmp_path: Path) -> list[Input]:
    package = tmp_path / "staged" / "scan-5"
    package.mkdir(parents=True)
    (package / "on.fits").write_bytes(b"twelve bytes")
    tree = tmp_path / "products" / "cube.zarr"
    (tree / "0").mkdir(parents=True)
    (tree / "0" / "chunk").write_bytes(b"1234")
    status = (package / "on.fits").stat()
    on = Recorded(path="on.fits", size_bytes=12, mtime_ns=status.st_mtime_ns, inode=status.st_ino)
    return [
        Input(label="package 5", root=tmp_path, target=package, place=PurePosixPath("raw/scan-5"), recorded=[on]),
        Input(
            label="product 9",
            root=tmp_path,
            target=tree,
            place=PurePosixPath("upstream/baseline/41/cube.zarr"),
            recorded=[Recorded(path="", size_bytes=4)],
        ),
    ]


def everything_below(directory: Path) -> dict[str, bytes | str | None]:
    return {
        str(path.relative_to(directory)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(directory.rglob("*"))
    }


def test_the_software_finds_its_inputs_by_role(execution: Execution, inputs: list[Input], manifest: Manifest) -> None:
    prepare(execution, inputs=inputs, manifest=manifest)
    found = execution.layout.input
    assert (found / "raw/scan-5/on.fits").read_bytes() == b"twelve bytes"
    assert (found / "upstream/baseline/41/cube.zarr/0/chunk").read_bytes() == b"1234"
    assert (found / "raw/scan-5").readlink() == inputs[0].target


def test_every_directory_of_the_contract_is_there(
    execution: Execution, inputs: list[Input], manifest: Manifest
) -> None:
    prepare(execution, inputs=inputs, manifest=manifest)
    made = {name for name, content in everything_below(execution.layout.directory).items() if content is None}
    assert made >= {"input", "workspace", "workspace/.home", "workspace/.tmp", "config", "logs"}
    assert made >= {f"output/{name}" for name in ("science", "qa", "plots", "statistics", "logs")}


def test_an_intermediate_step_gets_one_directory_for_its_products(
    execution: Execution, inputs: list[Input], manifest: Manifest
) -> None:
    prepare(replace(execution, is_final=False), inputs=inputs, manifest=manifest)
    assert (execution.layout.workspace / "grid").is_dir()
    assert not execution.layout.output.exists()


def test_the_manifest_is_read_only(execution: Execution, inputs: list[Input], manifest: Manifest) -> None:
    prepare(execution, inputs=inputs, manifest=manifest)
    assert execution.layout.manifest.stat().st_mode & 0o777 == 0o444
    assert Manifest.model_validate_json(execution.layout.manifest.read_bytes()) == manifest


def test_preparing_again_ends_the_same(execution: Execution, inputs: list[Input], manifest: Manifest) -> None:
    prepare(execution, inputs=inputs, manifest=manifest)
    first = everything_below(execution.layout.directory)
    prepare(execution, inputs=inputs, manifest=manifest)
    assert everything_below(execution.layout.directory) == first


def test_what_a_crash_left_half_done_is_completed(
    execution: Execution, inputs: list[Input], manifest: Manifest
) -> None:
    prepare(execution, inputs=inputs, manifest=manifest)
    whole = everything_below(execution.layout.directory)
    execution.layout.manifest.unlink()
    (execution.layout.input / "raw/scan-5").unlink()
    (execution.layout.input / "raw/scan-5").symlink_to("somewhere else")
    prepare(execution, inputs=inputs, manifest=manifest)
    assert everything_below(execution.layout.directory) == whole


def test_where_the_job_has_started_nothing_is_touched(
    execution: Execution, inputs: list[Input], manifest: Manifest
) -> None:
    execution.layout.directory.mkdir(parents=True)
    (execution.layout.directory / "job.start").touch()
    with pytest.raises(AttemptHasStarted, match="has started: adopt it, or make a new attempt"):
        prepare(execution, inputs=inputs, manifest=manifest)
    assert set(everything_below(execution.layout.directory)) == {"job.start"}


def rewrite(path: Path) -> None:
    """The same bytes with the same times in another file."""
    status = path.stat()
    draft = path.with_suffix(".new")
    draft.write_bytes(path.read_bytes())
    os.utime(draft, ns=(status.st_atime_ns, status.st_mtime_ns))
    draft.replace(path)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (Path.unlink, "cannot be found"),
        (lambda path: path.write_bytes(b"short"), "bytes: 12 recorded, 5 found"),
        (lambda path: os.utime(path, ns=(0, 0)), "modification time: .* recorded, 0 found"),
        (rewrite, "inode: .* recorded"),
    ],
)
def test_a_staged_file_that_changed_is_named_with_the_difference(
    execution: Execution,
    inputs: list[Input],
    manifest: Manifest,
    change: Callable[[Path], object],
    difference: str,
) -> None:
    file = inputs[0].target / "on.fits"
    change(file)
    with pytest.raises(InputChanged, match=f"package 5 at {file} has changed: .*{difference}") as refused:
        prepare(execution, inputs=inputs, manifest=manifest)
    assert refused.value.transient
    assert not execution.layout.directory.exists()


def empty(root: Path) -> None:
    root.rename(root.with_name("away"))
    root.mkdir()


@pytest.mark.parametrize("unmount", [lambda root: root.rename(root.with_name("away")), empty])
def test_where_a_whole_location_is_away_nothing_is_said_of_its_files(
    execution: Execution, inputs: list[Input], manifest: Manifest, tmp_path: Path, unmount: Callable[[Path], object]
) -> None:
    location = tmp_path / "location"
    (location / "raw").mkdir(parents=True)
    lost = replace(inputs[0], root=location, target=location / "raw" / "scan-5")
    unmount(location)
    with pytest.raises(OSError, match="location"):
        prepare(execution, inputs=[lost], manifest=manifest)


def test_an_input_whose_disk_comes_back_between_two_looks_has_not_changed(
    execution: Execution, inputs: list[Input], manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = inputs[0].target / "on.fits"
    away = file.rename(file.with_name("away"))
    monkeypatch.setattr(preparing, "require_mounted", lambda _: away.rename(file))
    prepare(execution, inputs=inputs, manifest=manifest)
    assert execution.layout.manifest.exists()


def test_a_product_directory_that_lost_a_file_is_noticed(
    execution: Execution, inputs: list[Input], manifest: Manifest
) -> None:
    (inputs[1].target / "0" / "chunk").unlink()
    with pytest.raises(InputChanged, match=r"product 9 .* bytes: 4 recorded, 0 found"):
        prepare(execution, inputs=inputs, manifest=manifest)


@pytest.mark.parametrize("place", ["raw/scan-5", "raw/scan-5/inside"])
def test_inputs_that_would_hide_one_another_are_refused(
    execution: Execution, inputs: list[Input], manifest: Manifest, place: str
) -> None:
    other = replace(inputs[1], place=PurePosixPath(place))
    with pytest.raises(InputsCollide, match="give each a place of its own"):
        prepare(execution, inputs=[inputs[0], other], manifest=manifest)
