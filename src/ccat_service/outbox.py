from collections.abc import Iterable
from typing import Final, Protocol, TypeAlias

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

_KEY: Final = "ccat_service.outbox"

Ids: TypeAlias = list[int | str]


class Mailbox(Protocol):
    """Where messages go; equal ones are one."""

    def deliver(self, ids: Ids) -> None:
        """Send the ids on; must not raise."""

    def __hash__(self) -> int: ...


class Outbox:
    """Messages that leave when their session's transaction is committed.

    They lie with the transaction, or savepoint, in which they were put. Releasing a savepoint hands them to the one
    around it, committing the outermost delivers them, and whatever lies with a transaction that ends otherwise is gone.
    """

    def __init__(self, session: Session) -> None:
        self._held: dict[SessionTransaction, dict[Mailbox, dict[int | str, None]]] = {}
        event.listen(session, "after_commit", self._after_commit)
        event.listen(session, "after_transaction_end", self._after_end)

    def put(self, session: Session, mailbox: Mailbox, ids: Ids) -> None:
        """Hold ids for a mailbox; those of one mailbox are delivered together, each once, in their first order."""
        self._hold(_innermost(session) or session.begin(), mailbox, ids)

    def _hold(self, transaction: SessionTransaction, mailbox: Mailbox, ids: Iterable[int | str]) -> None:
        self._held.setdefault(transaction, {}).setdefault(mailbox, {}).update(dict.fromkeys(ids))

    def _after_commit(self, session: Session) -> None:
        committed = _innermost(session)
        if committed is None:
            return
        around = _enclosing(committed)
        for mailbox, ids in self._held.pop(committed, {}).items():
            if around is None:
                mailbox.deliver(list(ids))
            else:
                self._hold(around, mailbox, ids)

    def _after_end(self, _session: Session, transaction: SessionTransaction) -> None:
        self._held.pop(transaction, None)


def outbox_of(session: Session) -> Outbox:
    """The session's outbox, made at the first use."""
    outbox: Outbox | None = session.info.get(_KEY)
    if outbox is None:
        outbox = session.info[_KEY] = Outbox(session)
    return outbox


def _innermost(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()


def _enclosing(transaction: SessionTransaction) -> SessionTransaction | None:
    parent = transaction.parent
    while parent is not None and parent.parent is not None and not parent.nested:
        parent = parent.parent  # the session's own bookkeeping within a flush
    return parent
