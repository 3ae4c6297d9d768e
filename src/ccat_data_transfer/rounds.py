from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db.session import in_transaction
from ccat_service.logging import StructuredLogger
from ccat_service.trouble import is_transient

_log = StructuredLogger(__name__)


def carefully(engine: sa.Engine, work: Callable[[Session], int]) -> int:
    """What `work` did in a transaction of its own; its trouble keeps neither other locations nor transfers waiting."""
    try:
        return in_transaction(engine, work)
    except Exception as error:
        if is_transient(error):
            raise
        _log.exception("a round met a defect of ours", error)
        return 0
