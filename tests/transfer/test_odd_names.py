"""Raw files may be called whatever a file system and the database take."""

from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_data_transfer.verbs.scrubbing import scrub
from ccat_ops_db import models
from ccat_ops_db.states import PhysicalCopyStatus
from tests.transfer.reductions import Reductions
from tests.transfer.support import Observatory
from tests.transfer.test_retention import ARCHIVE, SOURCE, STAGED

NAMES = [
    "-rf",
    "--files-from=x",
    "two\nlines",
    " a blank, and one at the end ",
    "a\\b",
    "*.fits",
    "Schauinsland-Gipfel-ä.fits",
    "2026-04-01/.hidden",
    "x" * 251 + ".fit",
    "ü" * 127,
    "long/" * 60 + "way",
]
ALIKE = ["cal.fits", "cal.fits.removed-outliers", "cal.fits.removed-20260401", "cal.fits.partial-1"]
"""What is unfinished of the first, or half removed, is called nearly like the others."""


def test_files_of_any_name_are_archived_staged_and_deleted(observatory: Observatory) -> None:
    files = {name: name.encode() for name in NAMES}
    package_id = observatory.observe(files)
    observatory.do_all()
    observatory.request_staging([package_id])
    observatory.do_all()
    staged = observatory.directory(STAGED) / observatory.copies(package_id)[STAGED].path
    assert {str(one.relative_to(staged)): one.read_bytes() for one in staged.rglob("*") if one.is_file()} == files
    observatory.keep(SOURCE, days=0)
    observatory.make_room(SOURCE)
    assert [one for one in observatory.directory(SOURCE).rglob("*") if one.is_file()] == []
    observatory.check_that_rows_tell_what_is_there()


def test_raw_files_that_are_called_nearly_like_what_is_removed_with_another_one_stay(observatory: Observatory) -> None:
    observatory.observe({name: name.encode() for name in ALIKE})
    observatory.do_all()
    observatory.keep(SOURCE, days=0)
    observatory.mark(SOURCE)
    [first] = [one for one in observatory.schedule_deletions(SOURCE) if path_of(observatory, one) == ALIKE[0]]
    (observatory.directory(SOURCE) / ALIKE[0]).unlink()
    delete_copies(observatory.worker, [first])
    assert sorted(one.name for one in observatory.directory(SOURCE).iterdir()) == sorted(ALIKE[1:])


def path_of(observatory: Observatory, copy_id: int) -> str:
    return str(observatory.one(models.PhysicalCopy, id=copy_id).path)


def test_what_is_called_nearly_like_what_is_unfinished_of_another_product_stays(observatory: Observatory) -> None:
    reductions = Reductions(observatory)
    files = {f"science/{name}": name.encode() for name in ALIKE}
    run_id = reductions.make(files)
    reductions.archive()
    first = reductions.copies(run_id, ARCHIVE)["science/cal.fits"]
    (observatory.directory(ARCHIVE) / first.path).unlink()
    scrub(observatory.worker, [first.id])
    reductions.archive()
    copies = reductions.copies(run_id, ARCHIVE)
    assert {path: (observatory.directory(ARCHIVE) / copy.path).read_bytes() for path, copy in copies.items()} == files
    assert {copy.status for copy in copies.values()} == {PhysicalCopyStatus.PRESENT}
