"""Reductions in an image: real Apptainer."""

from pathlib import Path

import pytest

from ccat_workflow_manager.contract.images import ImageNotNamed, bring, is_image
from ccat_workflow_manager.contract.values import Point, Verdict
from ccat_workflow_manager.hpc.images.errors import ImageUnusable
from tests.apptainer import OPTIONS
from tests.oci_registry import registry
from tests.workflow.contract.conftest import GOOD, Examine, found


def test_a_good_reduction_keeps_the_contract_in_an_image_too(examined_in_image: Examine) -> None:
    report = examined_in_image(GOOD)
    others = {one.point: one.verdict for one in report.findings if one.verdict is not Verdict.KEPT}
    others.pop(Point.TERMINATION, None)  # a slow machine may take long enough to be stopped
    assert others == {Point.NETWORK: Verdict.NOT_JUDGED}


def test_what_an_image_may_not_write_is_refused_and_told(examined_in_image: Examine) -> None:
    findings = found(examined_in_image(f'{GOOD}echo x >"$WORKFLOW_INPUT_DIR/x"'))
    assert findings[Point.WRITES].verdict is Verdict.BROKEN
    assert "Read-only file system" in findings[Point.WRITES].said
    assert findings[Point.INPUTS_UNCHANGED].verdict is Verdict.KEPT


def test_a_command_that_is_not_in_the_image_never_started(examined_in_image: Examine) -> None:
    [broken] = examined_in_image("no-such-program", "--quick").broken
    assert (broken.point, "mend the version's `command`" in broken.said) == (Point.STARTS, True)


def test_an_image_is_told_from_a_command(reducing_image: Path, tmp_path: Path) -> None:
    (named := tmp_path / "software").symlink_to(reducing_image)
    assert all(map(is_image, (str(named), "my.sif", "docker://registry/chai", "oras://registry/chai")))
    assert not any(map(is_image, ("chai", "/usr/bin/env", "--quick", "a:b")))


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("docker://registry/chai:1.2", "may be another image tomorrow"),
        ("nowhere.sif", "there is no file nowhere.sif"),
        ("ftp://host/chai", "brings no image"),
    ],
)
def test_an_image_that_cannot_be_released_is_not_tested(reference: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ImageNotNamed, match=said):
        bring(reference, tmp_path)


def test_a_file_that_only_ends_like_an_image_is_none(tmp_path: Path) -> None:
    (tmp_path / "my.sif").write_text("no image")
    with pytest.raises(ImageUnusable, match="it is no SIF file"):
        bring(str(tmp_path / "my.sif"), tmp_path)


def test_an_image_of_a_registry_is_pulled_by_its_digest(
    examined: Examine, small_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPTAINER_NOHTTPS", "1")
    with registry() as shelf:
        shelf.push(small_image.parent / "sandbox")
        image = bring(f"docker://127.0.0.1:{shelf.port}/chai@{shelf.tag}", tmp_path)
    assert (image.digest, image.sif.parent) == (shelf.tag, tmp_path)
    report = examined("echo 'no data' >&2; exit 65", image=image, apptainer_options=OPTIONS)
    assert found(report)[Point.EXIT_CODE].verdict is Verdict.KEPT
