"""What a night says of raw data that are not in the archive."""

import json
from typing import Any

from ccat_data_transfer.queues import Operation
from tests.transfer.support import Observatory, say

GONE = {"a.fits": b"a" * 1000, "b.fits": b"b" * 1000}


def night(observatory: Observatory) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(say(observatory, "night", "--json"))
    return found


def test_an_excluded_package_that_never_reached_the_archive_is_still_not_in_it(observatory: Observatory) -> None:
    package_id = observatory.observe(GONE)
    (observatory.directory("ccat/chai_raw_data") / "a.fits").unlink()
    observatory.do(Operation.PACKING)
    say(observatory, "package", "exclude", str(package_id), "--because", "a file of it is gone")
    found = night(observatory)
    assert (found["verdict"], found["is_complete"]) == ("1 of 1 scans not done: 1 not in the archive", False)
    assert found["packages"] == {"failed": 1}
    [hindrance] = found["hindrances"]
    assert (hindrance["place"], hindrance["number"]) == ("failed", 1)

    (observatory.directory("ccat/chai_raw_data") / "a.fits").write_bytes(GONE["a.fits"])
    say(observatory, "package", "retry", str(package_id))
    observatory.do_all()
    found = night(observatory)
    assert (found["unarchived"], found["packages"], found["hindrances"]) == (0, {"excluded": 1}, [])
