import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.attempts import LeaseLost, Worker
from ccat_ops_db import claims, models
from ccat_ops_db.session import in_transaction
from ccat_ops_db.sets import is_among
from ccat_service.processes import claimant

_Copy = models.PhysicalCopy


@dataclass
class CopyLease:
    """One worker's work on some copies: the lease that it holds on them."""

    worker: Worker
    copy_ids: Sequence[int]
    token: str = field(default_factory=lambda: secrets.token_hex(4))
    renew_at: float = 0.0
    _held: frozenset[int] = frozenset()
    """Of which it was held when that was looked at last."""

    @property
    def claimed_by(self) -> str:
        """Who holds it."""
        return f"{claimant(self.worker.name)} {self.token}"

    def claim(self, session: Session, copy_ids: Sequence[int]) -> list[int]:
        """Lease copies that nobody has, and return which."""
        here, lease = is_among(_Copy.id, copy_ids), self.worker.lease
        claimed = claims.claim(session, _Copy, where=here, by=self.claimed_by, lease=lease, limit=len(copy_ids))
        self._held |= frozenset(claimed)
        self.renew_at = monotonic() + lease.total_seconds() / 3
        return claimed

    def keep_lease(self, copy_id: int) -> None:
        """Renew the leases where that is due; raises LeaseLost where that on this copy is somebody else's by now."""
        if monotonic() >= self.renew_at:
            self.renew(copy_id)
        if copy_id not in self._held:
            raise LeaseLost

    def renew(self, copy_id: int) -> None:
        """Renew the leases; raises LeaseLost where that on this copy is not held any more, whatever else is."""
        in_transaction(self.worker.engine, self.held)
        if copy_id not in self._held:
            raise LeaseLost

    def held(self, session: Session) -> list[int]:
        """The copies that are still this worker's, its lease on them renewed; raises LeaseLost where none is."""
        lease = self.worker.lease
        held = claims.renew(session, _Copy, self.copy_ids, by=self.claimed_by, lease=lease)
        self._held = frozenset(held)
        if not held:
            raise LeaseLost
        self.renew_at = monotonic() + lease.total_seconds() / 3
        return held

    def release(self, session: Session) -> None:
        """Give it back."""
        claims.release(session, _Copy, self.copy_ids, by=self.claimed_by)
