"""What `ccat scan add` refuses: it is the last moment at which a mistake costs nothing."""

import json
import uuid

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.session import transaction
from tests.transfer.support import Observatory, say

WHERE = ("--module", "CHAI/LFA", "--location", "ccat/chai_raw_data")


def add(observatory: Observatory, scan_id: uuid.UUID, *words: str, code: int = 0) -> str:
    return say(observatory, "scan", "add", str(scan_id), *words, *WHERE, code=code)


def write(observatory: Observatory, name: str, data: bytes) -> str:
    path = observatory.directory("ccat/chai_raw_data") / name
    path.write_bytes(data)
    return str(path)


def registered(observatory: Observatory, scan_id: uuid.UUID) -> list[str]:
    with transaction(observatory.engine) as session:
        file = models.RawDataFile
        found = sa.select(file.relative_path).filter_by(executed_obs_unit_id=scan_id).order_by(file.relative_path)
        return list(session.scalars(found))


def test_a_file_of_another_scan_is_not_registered_unless_somebody_insists(observatory: Observatory) -> None:
    first, second = observatory.start_scan(), observatory.start_scan()
    one, other = write(observatory, "f1.dat", b"one"), write(observatory, "f2.dat", b"two")
    own = write(observatory, "f3.dat", b"three")
    add(observatory, first, one, other)
    told = json.loads(add(observatory, second, own, one, other, "--json", code=1))
    assert told["code"] == "of_another_scan"
    assert told["message"] == (
        f"Raw file f1.dat at ccat/chai_raw_data is registered already with the same bytes, for scan {first}, as are "
        "1 more that were told now. Check the scan and the files; `ccat scan add --again` registers what does belong "
        "to both. Nothing was registered."
    )
    assert registered(observatory, second) == []
    assert add(observatory, second, one, own, "--again") == "2 new of 2 files\n"
    assert add(observatory, second, one, own) == "0 new of 2 files\n"
    assert add(observatory, first, one, other) == "0 new of 2 files\n"


def test_a_path_that_is_used_anew_with_other_bytes_is_a_new_file(observatory: Observatory) -> None:
    first, second = observatory.start_scan(), observatory.start_scan()
    add(observatory, first, write(observatory, "newest.dat", b"one"))
    assert add(observatory, second, write(observatory, "newest.dat", b"two")) == "1 new of 1 files\n"
