"""All actions that people may request from the platform; the control API is the only caller.

Every action checks a permission, does its work and writes the ledger in one transaction of
``access``.
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
from ops.service.cost import AlertActions, CostActions
from ops.service.health import HealthActions, unwatched
from ops.service.ledger import LedgerActions
from ops.service.models import ModelActions
from ops.service.people import PeopleActions
from ops.service.policies import PolicyActions
from ops.service.releases import Records, ReleaseActions, no_records
from ops.sql.database import Database


class Service:
    """The actions, grouped by their subject.

    Attributes:
        access: Authenticates actors and checks their permissions.
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
        """Create the groups of actions; nothing is opened yet.

        Args:
            store: Store of the versions' files.
            clock: Returns the time, with a time zone.
            serving: How each configured model is served, by its name.
            wake: Makes the operator start its next round at once.
            health: Returns the last health check.
            prices: Prices of the cluster; None if only hours are reported.
            records: Counts the records that a model's versions received since a moment.
        """
        self._database = database
        self.access = Access(database, clock)
        self.models = ModelActions(self.access, store)
        self.policies = PolicyActions(self.access)
        self.people = PeopleActions(self.access)
        self.ledger = LedgerActions(self.access)
        self.releases = ReleaseActions(self.access, serving, wake, records)
        self.health = HealthActions(health)
        self.cost = CostActions(self.access, prices)
        self.alerts = AlertActions(self.access)

    def require_database(self) -> None:
        """Check that the database answers and has the right tables.

        Raises:
            DatabaseUnavailable: The database does not answer. Retriable.
            DatabaseIncompatible: Its tables belong to another version. Not retriable.
        """
        with self._database.read() as connection:
            people.is_empty(connection)
