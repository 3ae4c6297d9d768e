"""Raw files may be called whatever a file system and the database take."""

from tests.transfer.support import Observatory
from tests.transfer.test_retention import SOURCE, STAGED

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
