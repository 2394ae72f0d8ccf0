"""Actions of the control API: reading and verifying the ledger."""

from __future__ import annotations

from ops.access import ledger
from ops.access.ledger import Broken, LedgerHead, LedgerQuery, LedgerRow
from ops.access.permissions import EVERYTHING, Permission
from ops.access.transactions import Access, Actor, Attempt


class LedgerActions:
    """The ledger as one person may read it."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def read(self, actor: Actor, wanted: LedgerQuery) -> list[LedgerRow]:
        """Return a page of rows, newest first; requires ``read`` on the model, or on all models.

        Raises:
            NotAllowed: Not retriable.
        """
        attempt = Attempt("ledger.read", Permission.READ, wanted.model or EVERYTHING)
        with self._access.reading(actor, attempt) as connection:
            return ledger.entries(connection, wanted)

    def verify(self, actor: Actor) -> tuple[LedgerHead, Broken | None]:
        """Return the end of the chain and its first broken row; requires ``read`` on all models.

        Raises:
            NotAllowed: Not retriable.
        """
        attempt = Attempt("ledger.verify", Permission.READ)
        with self._access.reading(actor, attempt) as connection:
            return ledger.head(connection), ledger.verify(connection)
