import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ccat_ops_db.states import DataProductType
from ccat_workflow_manager.execution.annotations import AnnotationInvalid
from ccat_workflow_manager.execution.collection import (
    Collection,
    OutputGone,
    RequiredOutputMissing,
    collect,
    examine,
    publish,
)
from ccat_workflow_manager.execution.layout import RunLayout
from ccat_workflow_manager.execution.scan import OutputRefused


@pytest.fixture
def final(run: RunLayout) -> Collection:
    """The collection of a final step whose output directory is there, and empty."""
    collection = Collection(run=run, attempt=1, step_key="grid", is_final=True)
    collection.output.mkdir(parents=True)
    return collection


@pytest.fixture
def intermediate(run: RunLayout) -> Collection:
    """The same of an intermediate step."""
    collection = Collection(run=run, attempt=1, step_key="grid", is_final=False)
    collection.output.mkdir(parents=True)
    return collection


def write(collection: Collection, path: str, content: str = "content") -> Path:
    file = collection.output / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def fill(file: Path, size: int) -> None:
    file.touch()
    os.truncate(file, size)


def requiring(collection: Collection, *patterns: str) -> Collection:
    return Collection(
        run=collection.run, attempt=1, step_key="grid", is_final=collection.is_final, required_outputs=patterns
    )


# What was made


def test_the_first_directory_says_what_a_product_of_a_final_step_is_for(final: Collection) -> None:
    for path in ("science/a/map.fits", "qa/q", "plots/p", "statistics/s", "logs/l", "other/o", "science.txt", "qa2/x"):
        write(final, path)
    assert {product.path: product.type for product in collect(final).products} == {
        "science/a/map.fits": DataProductType.SCIENCE,
        "qa/q": DataProductType.QA_METRIC,
        "plots/p": DataProductType.PLOT,
        "statistics/s": DataProductType.STATISTICS,
        "logs/l": DataProductType.LOG,
        "other/o": DataProductType.INTERMEDIATE,
        "science.txt": DataProductType.INTERMEDIATE,
        "qa2/x": DataProductType.INTERMEDIATE,
    }


def test_all_products_of_an_intermediate_step_are_intermediate(run: RunLayout) -> None:
    collection = Collection(run=run, attempt=1, step_key="grid", is_final=False)
    write(collection, "science/map.fits")
    write(collection, "table")
    assert {product.type for product in collect(collection).products} == {DataProductType.INTERMEDIATE}
    assert (run.products / "science" / "map.fits").exists()
    assert collection.output == run.attempt(1).workspace / "grid"


def test_a_product_has_size_and_checksum(final: Collection) -> None:
    write(final, "science/map.fits", "some bytes")
    (product,) = collect(final).products
    assert product.size_bytes == 10
    assert product.checksum == "sha256:" + hashlib.sha256(b"some bytes").hexdigest()


def test_a_zarr_directory_is_one_product(final: Collection) -> None:
    write(final, "science/cube.zarr/.zattrs", "{}")
    write(final, "science/cube.zarr/deep/inner.zarr/0.0", "1234")
    write(final, "science/cube.zarr/run", "#!").chmod(0o700)
    (product,) = collect(final).products
    assert (product.path, product.type, product.size_bytes) == ("science/cube.zarr", DataProductType.SCIENCE, 8)
    lines = [
        f"{path}\0{mode}\0{hashlib.sha256(content).hexdigest()}\n"
        for path, mode, content in [
            (".zattrs", "444", b"{}"),
            ("deep/inner.zarr/0.0", "444", b"1234"),
            ("run", "555", b"#!"),
        ]
    ]
    assert product.checksum == "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def test_published_files_are_read_only(final: Collection) -> None:
    write(final, "science/map.fits")
    write(final, "science/cube.zarr/0")
    collect(final)
    files = [path for path in final.run.products.rglob("*") if path.is_file()]
    assert [path.stat().st_mode & 0o222 for path in files] == [0, 0]


# What must be there


def test_without_any_product_the_run_has_not_succeeded(final: Collection) -> None:
    (final.output / "science").mkdir()
    with pytest.raises(RequiredOutputMissing, match="did not write any product; it wrote nothing"):
        collect(final)
    assert not final.run.products.exists()


def test_a_missing_required_output_is_named_with_what_was_found(final: Collection) -> None:
    write(final, "qa/metrics.json", "{}")
    with pytest.raises(RequiredOutputMissing, match=r"required output science/\*\.fits; it wrote qa/metrics\.json"):
        collect(requiring(final, "qa/*", "science/*.fits"))


def test_of_many_files_only_the_first_are_listed(final: Collection) -> None:
    for number in range(30):
        write(final, f"plots/{number:02}.png")
    with pytest.raises(RequiredOutputMissing, match=r"plots/09\.png and 20 more$") as missing:
        collect(requiring(final, "science/*"))
    assert len(missing.value.found) == 30


@pytest.mark.parametrize("pattern", ["science/*.fits", "**/*.fits", "science/map.fits", "science/*.zarr", "**/.hidden"])
def test_a_required_output_may_be_a_file_a_tree_or_at_any_depth(final: Collection, pattern: str) -> None:
    write(final, "science/map.fits")
    write(final, "science/cube.zarr/0")
    write(final, "logs/.hidden")
    assert len(collect(requiring(final, pattern)).products) == 3


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../attempt-1/output/science/map.fits", "science", "", "["])
def test_a_pattern_that_is_no_path_of_a_product_matches_nothing(final: Collection, pattern: str) -> None:
    write(final, "science/map.fits")
    with pytest.raises(RequiredOutputMissing):
        collect(requiring(final, pattern))


# What is odd


def test_a_file_where_the_metrics_directory_would_be_is_a_product_like_others(intermediate: Collection) -> None:
    write(intermediate, "qa")
    assert [product.path for product in collect(intermediate).products] == ["qa"]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda output: (output / "products.json").mkdir(), "products.json .* is invalid: it is a directory"),
        (lambda output: os.mkfifo(output / "products.json"), "products.json .* is invalid: it is no regular file"),
        (
            lambda output: fill(output / "products.json", 10**9),
            r"it has 1,000,000,000 bytes, and 100,000,000 are the most",
        ),
        (
            lambda output: (output / "qa/metrics.json").write_text("[" * 100_000),
            "metrics.json .* is invalid: it is nested too deeply",
        ),
    ],
)
def test_descriptions_that_cannot_even_be_read_are_refused(
    final: Collection, make: Callable[[Path], object], problem: str
) -> None:
    write(final, "science/map.fits")
    (final.output / "qa").mkdir(exist_ok=True)
    make(final.output)
    with pytest.raises(AnnotationInvalid, match=problem):
        collect(final)


def test_an_attempt_whose_directory_is_gone_is_said_to_be_gone(final: Collection) -> None:
    shutil.rmtree(final.record.parent)
    with pytest.raises(OutputGone):
        collect(final)


# What is refused


def replace_by_link(output: Path) -> None:
    output.symlink_to(output.rename(output.with_name("elsewhere")))


def link(target: str, name: str = "science/link") -> Callable[[Path], None]:
    return lambda output: (output / name).symlink_to(target)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (link("/etc/passwd"), "links to /etc/passwd, which is outside"),
        (link("../../elsewhere"), "outside of the output directory"),
        (link("../../output/science/map.fits"), "outside of the output directory"),
        (link("nothing"), "links to nothing, which does not exist"),
        (link("link"), "links to link, which does not exist"),
        (link("../../.."), "outside of the output directory"),
        (link("0", "science/cube.zarr/1"), "a link inside of science/cube.zarr, which is one product"),
        (link("deep", "science/cube.zarr/also"), "a link inside of science/cube.zarr, which is one product"),
        (lambda output: os.mkfifo(output / "science/pipe"), "neither a file nor a directory"),
        (lambda output: os.mkfifo(output / "science/cube.zarr/pipe"), "neither a file nor a directory"),
        (lambda output: (output / os.fsdecode(b"science/\xff")).touch(), "name is not UTF-8"),
        (
            lambda output: (output / "science/map.fits.partial-7-0a1b2c3d").touch(),
            "removed as the rest of an unfinished",
        ),
        (replace_by_link, "it was replaced by a link to .*elsewhere; write into the directory itself"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is_published(
    final: Collection, make: Callable[[Path], None], problem: str
) -> None:
    write(final, "science/map.fits")
    write(final, "science/cube.zarr/0")
    write(final, "science/cube.zarr/deep/0")
    make(final.output)
    with pytest.raises(OutputRefused, match=problem):
        collect(final)
    assert not final.run.products.exists()


def test_a_link_within_the_directory_still_leads_there_when_published(final: Collection) -> None:
    write(final, "science/map.fits", "the map")
    link("map.fits", "science/latest.fits")(final.output)
    link("science/map.fits", "latest.fits")(final.output)
    assert [product.path for product in collect(final).products] == ["science/map.fits"]
    assert (final.run.products / "science" / "latest.fits").read_text() == "the map"
    assert (final.run.products / "latest.fits").read_text() == "the map"


# What the software says


def test_products_and_metrics_are_described_by_the_software(final: Collection) -> None:
    write(final, "science/map.fits")
    write(final, "qa/metrics.json", '{"rms_k": 0.25, "pixels": 64}')
    said = {
        "media_type": "application/fits",
        "description": "Integrated line",
        "metadata": {"unit": "K km/s"},
        "metrics": {"peak": 8.5},
    }
    write(final, "products.json", json.dumps({"science/map.fits": said}))
    collected = collect(final)
    assert collected.metrics == {"rms_k": 0.25, "pixels": 64.0}
    assert [product.path for product in collected.products] == ["qa/metrics.json", "science/map.fits"]
    assert collected.products[1].model_dump(include=set(said)) == said


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("products.json", "{", r"products\.json .* is invalid: .*line 1"),
        ("products.json", '{"science/mep.fits": {}}', r"at science/mep.fits: .* Did you mean `science/map\.fits`\?"),
        ("products.json", '{"science/map.fits": {"colour": 1}}', r"at science/map\.fits\.colour: Extra inputs"),
        ("products.json", "[]", "valid dictionary"),
        ("products.json", '{"science/map.fits": {"metadata": {"a": NaN}}}', "NaN is not a number that JSON knows"),
        (
            "products.json",
            '{"science/map.fits": {"metadata": {"a": 1e999}}}',
            r"at science/map\.fits\.metadata: .*`a` is no finite",
        ),
        ("products.json", '{"science/map.fits": {"description": "\\u0000"}}', "contains a NUL character"),
        ("products.json", '{"science/map.fits": {"description": "\\ud800"}}', "surrogates not allowed"),
        ("qa/metrics.json", '{"rms": "0.1"}', r"qa/metrics\.json .* at rms: .*valid number"),
        ("qa/metrics.json", '{"rms": true}', r"at rms: .*valid number"),
        ("qa/metrics.json", '{"rms": 1e999}', r"at rms: .*finite number"),
        ("qa/metrics.json", '{"nested": {"rms": 1}}', r"at nested: .*valid number"),
    ],
)
def test_an_invalid_description_is_refused_with_its_place(
    final: Collection, file: str, content: str, message: str
) -> None:
    write(final, "science/map.fits")
    write(final, file, content)
    with pytest.raises(AnnotationInvalid, match=message):
        collect(final)


# Publishing


def test_collecting_again_returns_the_same(final: Collection) -> None:
    write(final, "science/map.fits")
    write(final, "qa/metrics.json", '{"rms": 0.1}')
    assert collect(final) == collect(final)
    assert not final.output.exists()
    assert json.loads(final.record.read_text())["schema_version"] == 1


def test_interrupted_before_the_rename_it_starts_again(final: Collection) -> None:
    write(final, "science/map.fits")
    examine(final)
    assert final.record.exists()
    assert not final.run.products.exists()
    assert [product.path for product in collect(final).products] == ["science/map.fits"]


def test_interrupted_after_the_rename_it_only_reads(final: Collection) -> None:
    write(final, "science/map.fits")
    examine(final)
    publish(final)
    record = final.record.stat()
    assert [product.path for product in collect(final).products] == ["science/map.fits"]
    assert final.record.stat().st_mtime_ns == record.st_mtime_ns


def test_products_that_an_earlier_attempt_published_and_nobody_registered_are_set_aside(final: Collection) -> None:
    write(final, "science/map.fits", "first")
    collect(final)
    second = Collection(run=final.run, attempt=2, step_key="grid", is_final=True)
    write(second, "science/map.fits", "second")
    collected = collect(second)
    assert collect(second) == collected
    assert (final.run.products / "science/map.fits").read_text() == "second"
    assert (final.run.set_aside(before=2) / "science/map.fits").read_text() == "first"


def test_an_output_that_is_gone_is_said_to_be_gone(run: RunLayout) -> None:
    collection = Collection(run=run, attempt=1, step_key="grid", is_final=True)
    run.attempt(1).directory.mkdir(parents=True)
    with pytest.raises(OutputGone, match="is gone and was not published"):
        collect(collection)
