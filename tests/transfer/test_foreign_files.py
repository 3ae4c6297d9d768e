"""What an instrument's account wrote comes back from its removal, though workers may not change it."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PhysicalCopyStatus
from tests.needs import do_without
from tests.transfer.support import Observatory
from tests.transfer.test_replication import check_copy, look_again
from tests.transfer.test_retention import ARCHIVE, SOURCE, archived, change, statuses
from tests.transfer.test_troubles import as_anybody, read_only

NOBODY = 65534


@contextmanager
def of_another_user(root: Path) -> Iterator[None]:
    """What lies there is another user's, and we may do no more with it than anybody."""
    try:
        for path in root.rglob("*"):
            os.chown(path, NOBODY, NOBODY)
    except PermissionError:
        do_without("only root can give a file to another user")
    with as_anybody():
        yield


@pytest.mark.parametrize("keeping", [of_another_user, read_only])
def test_raw_files_that_have_to_stay_come_back_where_they_cannot_be_changed(
    observatory: Observatory, keeping: Callable[[Path], AbstractContextManager[None]]
) -> None:
    package_id = archived(observatory)
    observatory.keep(SOURCE, days=0)
    observatory.mark(SOURCE)
    [first, _] = scheduled = observatory.schedule_deletions(SOURCE)
    with transaction(observatory.engine) as session:
        to = PhysicalCopyStatus.DELETION_IN_PROGRESS
        advance(session, models.PhysicalCopy, [first], to=to, because="of a worker that died", by="a worker")
        for place in (ARCHIVE, "ccat/buffer"):
            lost = [observatory.copies(package_id)[place].id]
            advance(session, models.PhysicalCopy, lost, to=PhysicalCopyStatus.CORRUPT, because="it rots", by="a test")
    change(observatory, models.PhysicalCopy, {"id": first}, lease_until=None)
    assert observatory.recover() == 1
    with keeping(observatory.directory(SOURCE)):
        delete_copies(observatory.worker, scheduled)
    assert statuses(observatory, SOURCE) == [PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.PRESENT]
    assert observatory.one(models.PhysicalCopy, id=first).failure is None

    assert look_again(observatory) == 1
    observatory.do_all()
    check_copy(observatory, package_id, ARCHIVE)
