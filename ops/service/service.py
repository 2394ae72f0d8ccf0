"""All that people may ask of the platform; the control API is its only caller.

Every verb checks a permission, does its work and writes the ledger in one transaction; ``access``
sees to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ops.access import people
from ops.access.transactions import Access, Clock, utc_now
from ops.catalogue.store import ArtifactStore
from ops.config.prices import PriceTable
from ops.health.rules import Health
from ops.service.cost import AlertVerbs, CostVerbs
from ops.service.health import HealthVerbs, unwatched
from ops.service.ledger import LedgerVerbs
from ops.service.models import ModelVerbs
from ops.service.people import PeopleVerbs
from ops.service.policies import PolicyVerbs
from ops.service.releases import Records, ReleaseVerbs, no_records
from ops.sql.database import Database


class Service:
    """The verbs, by what they concern.

    Attributes:
        access: Knows who asks and whether they may.
    """

    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        clock: Clock = utc_now,
        *,
        serving: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        wake: Callable[[], None] = lambda: None,
        health: Callable[[], Health] = unwatched,
        prices: PriceTable | None = None,
        records: Records = no_records,
    ) -> None:
        """Put the parts together; nothing is opened yet.

        Args:
            store: Where the files of versions are kept.
            clock: Gives the time; aware.
            serving: How each configured model is served, by its name.
            wake: Has the operator look at once.
            health: The last judgement of how the platform stands.
            prices: Of the cluster; None where only hours are known.
            records: What the versions of a model have had since a moment.
        """
        self._database = database
        self.access = Access(database, clock)
        self.models = ModelVerbs(self.access, store)
        self.policies = PolicyVerbs(self.access)
        self.people = PeopleVerbs(self.access)
        self.ledger = LedgerVerbs(self.access)
        self.releases = ReleaseVerbs(self.access, serving, wake, records)
        self.health = HealthVerbs(health)
        self.cost = CostVerbs(self.access, prices)
        self.alerts = AlertVerbs(self.access)

    def require_database(self) -> None:
        """Ask the database whether it answers.

        Raises:
            DatabaseUnavailable: It does not. Retriable.
            DatabaseIncompatible: Its tables are not those of this version. Not retriable.
        """
        with self._database.read() as connection:
            people.is_empty(connection)
