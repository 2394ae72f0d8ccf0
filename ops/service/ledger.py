"""The ledger, for people."""

from __future__ import annotations

from datetime import datetime

from ops.access import ledger
from ops.access.ledger import Broken, LedgerHead, LedgerRow
from ops.access.permissions import EVERYTHING, Permission
from ops.access.transactions import Access, Actor, Attempt


class LedgerVerbs:
    """The ledger as one person may read it."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def read(
        self,
        actor: Actor,
        *,
        model: str | None = None,
        release: int | None = None,
        by: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        before_id: int | None = None,
    ) -> list[LedgerRow]:
        """A page of rows, the newest first; takes ``read`` on the model, or on all models.

        Raises:
            NotAllowed: Not retriable.
        """
        attempt = Attempt("ledger.read", Permission.READ, model or EVERYTHING)
        with self._access.reading(actor, attempt) as connection:
            return ledger.entries(
                connection,
                model=model,
                release=release,
                actor=by,
                since=since,
                limit=limit,
                before_id=before_id,
            )

    def verify(self, actor: Actor) -> tuple[LedgerHead, Broken | None]:
        """Where the chain ends, and the first place where it does not hold; takes ``read`` on all.

        Raises:
            NotAllowed: Not retriable.
        """
        attempt = Attempt("ledger.verify", Permission.READ)
        with self._access.reading(actor, attempt) as connection:
            return ledger.head(connection), ledger.verify(connection)
