"""Registers the models of a configuration during ``up``, and routes to their first versions.

The configuration defines how a model is served and provides its first version. After that only
releases change what answers: another directory is registered as the next version, and answers
nothing until it is released.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ops.access.ledger import Entry, append
from ops.catalogue.deployments import (
    as_served,
    deployment,
    keep_deployment,
    serving_settings,
)
from ops.catalogue.registry import Registry
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import VersionId, find, number_of
from ops.config.fit import misfits
from ops.config.settings import PlatformConfig
from ops.errors import ConfigError
from ops.releases.routes import all_routes, live_label, mark_published, put_route, unpublished
from ops.sql.database import Database
from serve.artifact import ModelCard
from serve.settings import ModelSettings
from stream.control import publish
from stream.kafka.sink import PlainProducer
from stream.schema import ControlRecord, VersionRoute
from stream.settings import KafkaSettings

ACTOR = "up"


def opened(config: PlatformConfig) -> Database:
    """Return the database, migrated to this version.

    Raises:
        DatabaseUnavailable, DatabaseIncompatible: The database cannot be used.
    """
    database = Database(config.database_url())
    database.migrate()
    return database


def require_fit(config: PlatformConfig, database: Database, cards: Mapping[str, ModelCard]) -> None:
    """Refuse pipelines with settings that the live versions of their models refuse.

    Args:
        cards: Card of each model by name, for models of which no version is live yet.
    Raises:
        ConfigError: Names every such pipeline and setting.
    """
    faults = []
    with database.read() as connection:
        for pipeline in config.pipelines:
            name, card = pipeline.model, cards[pipeline.model]
            label = live_label(connection, name)
            if label is not None:
                name = f"{name}@{label}"
                card = find(connection, VersionId(pipeline.model, number_of(label) or 0)).card
            faults += [
                f"pipeline {pipeline.name} does not fit {name}: {misfit.setting}: {misfit.reason}"
                for misfit in misfits(pipeline, card)
            ]
    if faults:
        raise ConfigError("\n".join(faults))


def register(config: PlatformConfig, database: Database, on_step: Callable[[str], None]) -> None:
    """Register the directories of a configuration, and route to the first version of new models.

    Raises:
        OpsError, ServeError: A directory, the store or the database cannot be used.
    """
    registry = Registry(database, ArtifactStore(config.artifact_store()))
    for model in config.models:
        now = datetime.now(UTC)
        found = registry.register(model.name, model.path, author=ACTOR, now=now)
        settings = serving_settings(model)
        with database.begin() as connection:
            live = live_label(connection, model.name)
            if live is None:
                _first_route(connection, model.name, found.version, found.digest, settings, now)
                on_step(f"{model.name}@{found.version}: the first version, live without a release")
                continue
            held = deployment(connection, model.name, live)
        name = f"{model.name}@{found.version}"
        if number_of(live) != found.version:
            on_step(
                f"{model.name}@{live} is live; the directory of the configuration is {name}: "
                f"`bertstream release start {name}` releases it"
            )
        elif held != settings:
            on_step(
                f"{model.name}@{live} is served with settings that differ from the configuration: "
                f"`bertstream release start {name}` applies the configured ones"
            )


def served(config: PlatformConfig, database: Database) -> list[ModelSettings]:
    """Return the registered versions that the routes name, with their files on this machine.

    Raises:
        OpsError, ServeError: The files of a version cannot be fetched.
    """
    store = ArtifactStore(config.artifact_store())
    cache_dir = config.state_dir / "versions"
    found = []
    with database.read() as connection:
        routes = all_routes(connection)
        for model in {m.name: m for m in config.models}.values():
            for label in routes[model.name].versions if model.name in routes else ():
                kept = find(connection, VersionId(model.name, number_of(label) or 0))
                path = store.fetch(kept.uri, kept.digest, cache_dir).path
                settings = deployment(connection, model.name, label)
                found.append(as_served(model, label, settings, path))
    return found


def publish_routes(database: Database, kafka: KafkaSettings) -> None:
    """Publish all current routes to the control topic.

    A new broker lacks the routes that an older one received, so all are sent again.

    Raises:
        StreamError: The broker did not accept them.
    """
    with database.read() as connection:
        records = list(all_routes(connection).values())
        waiting = {record.model for record in unpublished(connection)}
    if not records:
        return
    producer = PlainProducer(kafka)
    try:
        for record in records:
            publish(producer, record)
            if record.model in waiting:
                with database.begin() as connection:
                    mark_published(connection, record)
    finally:
        producer.close()


def _first_route(
    connection: Any,
    model: str,
    number: int,
    digest: str,
    settings: Mapping[str, Any],
    now: datetime,
) -> None:
    label = str(number)
    keep_deployment(connection, model, label, settings, now)
    route = VersionRoute(digest=digest, weight=1.0)
    put_route(connection, ControlRecord(model=model, epoch=1, versions={label: route}))
    append(
        connection,
        Entry(
            at=now,
            actor=ACTOR,
            action="route.first",
            model=model,
            version=number,
            to_state="live",
            reason="the first version of the configuration",
            version_digest=digest,
        ),
    )
