"""Creates the health monitor: which probes it has and how often each runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import VersionId, find
from ops.config.settings import PlatformConfig
from ops.health.golden_probe import MAX_TEXTS, GoldenProbe, GoldenSet, Replicas
from ops.health.kafka_probes import ControlProbe, KafkaProbe, RoundTripProbe
from ops.health.monitor import HealthMonitor, Schedule
from ops.health.probes import AppsProbe, DatabaseProbe, MachineProbe, telling
from ops.health.readings import Expected
from ops.platform.installation import PlatformState, token_path
from ops.sql.database import Database
from ops.telemetry.observations import Observations
from ops.view import PlatformView
from serve.golden import golden_options
from stream.times import to_ms
from stream.topics import pipeline_topics, platform_topics

GOLDEN_EVERY_S = 120.0
# Replicas check their golden texts when they start. Querying them loads Ray, which takes as much
# CPU as the rest of the operator's start, when consumers and replicas need it.
GOLDEN_FIRST_S = 60.0
# Even with open connections, these are the most expensive probes.
ROUND_TRIP_EVERY_S = 30.0
MACHINE_EVERY_S = 60.0
KNOWN_PRECISION = timedelta(minutes=30)


def expected_of(config: PlatformConfig) -> Expected:
    """Return the desired state according to a configuration."""
    topics = set(platform_topics())
    for pipeline in config.pipelines:
        topics |= set(pipeline_topics(pipeline))
    return Expected(
        pipelines=config.pipelines,
        topics=frozenset(topics),
        models=frozenset(model.name for model in config.models),
    )


def monitor_of(
    config: PlatformConfig,
    state: PlatformState,
    view: PlatformView,
) -> HealthMonitor:
    """Return the monitor of a platform, not yet started."""
    database, observations, apps = view
    expected = expected_of(config)
    kafka = state.kafka(config.kafka)
    replicas = Replicas(
        golden=_Versions(config, database).golden,
        ask=apps.reply,
        running=lambda name: apps.found[name].replicas if name in apps.found else 0,
        precision=lambda model, label: _precision(observations, model, label),
    )
    ray = AppsProbe(state.dashboard, token_path(config.state_dir, state), _now)
    probes = {
        "kafka": Schedule(KafkaProbe(kafka, expected, _now), deadline_s=8.0),
        "round_trip": Schedule(RoundTripProbe(kafka), deadline_s=8.0, every_s=ROUND_TRIP_EVERY_S),
        "control": Schedule(ControlProbe(kafka), deadline_s=8.0, every_s=ROUND_TRIP_EVERY_S),
        "apps": Schedule(ray, deadline_s=8.0),
        "database": Schedule(DatabaseProbe(database, _now), deadline_s=8.0),
        "machine": Schedule(MachineProbe(config), deadline_s=5.0, every_s=MACHINE_EVERY_S),
    }
    if expected.models:
        golden = GoldenProbe(database, expected.models, replicas, _now)
        probes["golden"] = Schedule(
            golden, deadline_s=60.0, every_s=GOLDEN_EVERY_S, first_after_s=GOLDEN_FIRST_S
        )
    return HealthMonitor(
        expected,
        probes,
        lambda now: telling(expected, observations, now),
        clock=_now,
        state_dir=config.state_dir,
    )


class _Versions:
    """Reads the golden texts of versions from the artifact store."""

    def __init__(self, config: PlatformConfig, database: Database) -> None:
        self._database = database
        self._store = ArtifactStore(config.artifact_store())
        self._cache_dir = config.state_dir / "versions"

    def golden(self, model: str, number: int) -> GoldenSet:
        with self._database.read() as connection:
            kept = find(connection, VersionId(model, number))
        artifact = self._store.fetch(kept.uri, kept.digest, self._cache_dir)
        card = artifact.card
        return GoldenSet(card.task, artifact.golden()[:MAX_TEXTS], golden_options(card))


def _precision(observations: Observations, model: str, label: str) -> str | None:
    """Return the precision that a version reported last; None if unknown."""
    since_ms = to_ms(_now() - KNOWN_PRECISION)
    windows = reversed(observations.windows(model, since_ms=since_ms))
    own = (window.precision for window in windows if window.version == label)
    return next((precision for precision in own if precision), None)


def _now() -> datetime:
    return datetime.now(UTC)
