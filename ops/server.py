"""The process that operates a platform; ``bertstream up`` starts it.

Reads what the pipelines tell, ticks, looks after its health and answers the control API, each in
threads of its own; the main one waits for the end.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import uvicorn

from ops.accounts import Accounts, Machines
from ops.api import create_app
from ops.apps import Apps, Ray
from ops.artifact_store import ArtifactStore
from ops.backlog import BacklogReader
from ops.bootstrap import is_registered, serving_settings
from ops.database import Database
from ops.errors import NotRunning
from ops.health_monitor import HealthMonitor
from ops.health_platform import monitor_of
from ops.local import State, connection, is_at_work, token_path
from ops.observations import Observations
from ops.operator import Operator
from ops.release_facts import FactFinder
from ops.releases import open_releases
from ops.repairs import Deploy, Repairs
from ops.scaler import Scaler
from ops.scaling import ScalingSettings
from ops.service import Service
from ops.settings import PlatformConfig
from ops.survey import Survey, computes_bf16
from ops.upkeep import Upkeep
from serve.contract import app_name
from serve.settings import ModelSettings
from stream.admin import Admin
from stream.control import publish
from stream.errors import StreamError
from stream.schema import ControlRecord
from stream.settings import KafkaSettings, PipelineSettings
from stream.sink import PlainProducer
from stream.source import TelemetryReader

logger = logging.getLogger(__name__)

# What was told before this is of no step that is still open.
OLDEST_TELEMETRY = timedelta(hours=3)
RETRY_S = 1.0
ADMIN_DEADLINE_S = 3.0


class Control:
    """Writes the control topic; connects when there is something to write."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._producer: PlainProducer | None = None

    def publish(self, record: ControlRecord) -> None:
        """See ``ControlDoor``."""
        try:
            self._producer = self._producer or PlainProducer(self._kafka)
            publish(self._producer, record)
        except StreamError:
            if self._producer is not None:
                self._producer.close()
            self._producer = None
            raise


def follow(kafka: KafkaSettings, into: Observations, since_ms: int, stop: threading.Event) -> None:
    """Read what the pipelines tell until told to stop; after an error from where it was lost."""
    while not stop.is_set():
        try:
            reader = TelemetryReader(kafka, since_ms=since_ms)
        except StreamError as exc:
            logger.warning("telemetry cannot be read, trying on: %s", exc)
            stop.wait(RETRY_S)
            continue
        try:
            while not stop.is_set():
                into.add(reader.poll(0.5))
                since_ms = int(time.time() * 1000)
        except StreamError as exc:
            logger.warning("telemetry cannot be read, trying on: %s", exc)
        finally:
            reader.close()


def serve(config: PlatformConfig) -> None:
    """Operate the platform until SIGTERM or SIGINT.

    Raises:
        NotRunning: It is not up.
        OpsError: The database does not answer.
    """
    state = State.load(config.state_dir)
    if state is None:
        raise NotRunning(f"nothing runs here ({config.state_dir}); `bertstream up` starts it")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    database = Database(config.database_url(), timeout_s=5.0)
    database.migrate()
    kafka = state.kafka(config.kafka)
    observations = Observations(counted_from_ms=int(time.time() * 1000))
    follower = threading.Thread(
        target=follow,
        args=(kafka, observations, _since_ms(database), stopping),
        name="telemetry",
        daemon=True,
    )
    follower.start()
    apps = apps_of(config, state)
    upkeep = upkeep_of(config, state, database, observations, apps, stopping)
    operator = operator_of(config, state, database, observations, apps, upkeep)
    monitor = monitor_of(config, state, database, observations, apps)
    monitor.start()
    api = api_of(config, database, operator, monitor)
    answering = threading.Thread(target=api.run, name="api", daemon=True)
    answering.start()
    ticking = threading.Thread(
        target=operator.run, args=(stopping,), kwargs={"tick_s": config.tick_s}, name="operator"
    )
    ticking.start()
    logger.info("operating")
    stopping.wait()
    api.should_exit = True
    monitor.stop()
    ticking.join(30)
    answering.join(5)
    database.close()


def apps_of(config: PlatformConfig, state: State) -> Apps:
    """The Serve apps of a platform; nobody has looked yet."""
    return Apps(
        Ray(
            connect=lambda: connection(config.state_dir, state),
            dashboard=state.dashboard,
            token_path=token_path(config.state_dir, state),
        ),
        deadline_s=config.deploy_deadline_s,
    )


def operator_of(
    config: PlatformConfig,
    state: State,
    database: Database,
    observations: Observations,
    apps: Apps,
    upkeep: Upkeep,
) -> Operator:
    """The operator of a platform, not yet at work."""
    facts = FactFinder(
        database,
        ArtifactStore(config.artifact_store()),
        observations,
        apps,
        cache_dir=config.state_dir / "versions",
        load_deadline_s=config.deploy_deadline_s,
    )
    return Operator(
        database,
        observations,
        apps,
        Control(state.kafka(config.kafka)),
        facts,
        {model.name: model for model in config.models if is_registered(model)},
        clock=lambda: datetime.now(UTC),
        upkeep=upkeep,
    )


def upkeep_of(
    config: PlatformConfig,
    state: State,
    database: Database,
    observations: Observations,
    apps: Apps,
    stopping: threading.Event,
) -> Upkeep:
    """What the operator does beside releases; its readers are at work until told to stop."""
    kafka, scaling = state.kafka(config.kafka), config.scaling
    backlogs = BacklogReader(
        config.pipelines,
        lambda: Admin(kafka, deadline_s=ADMIN_DEADLINE_S),
        half_life_s=(scaling or ScalingSettings()).smoothing_s,
    )
    machines = Machines(apps.nodes, grows=state.head is None)
    for reader in (backlogs, machines):
        name = type(reader).__name__
        threading.Thread(target=reader.run, args=(stopping,), name=name, daemon=True).start()
    deadline_s = config.deploy_deadline_s
    repairs = Repairs(
        database,
        observations,
        apps,
        backlogs,
        pipelines=config.pipelines,
        deploys=deploys_of(config, kafka),
        deadline_s=deadline_s,
        may=lambda: not is_at_work(config.state_dir),
    )
    accounts = Accounts(
        database,
        observations,
        apps,
        machines,
        least={model.name: model.replicas for model in config.models},
        pipelines=config.pipelines,
        prices=config.prices,
    )
    return Upkeep(
        database,
        observations,
        apps,
        pipelines=config.pipelines,
        backlogs=backlogs,
        machines=machines,
        scaler=Scaler(scaling, config.models, config.pipelines) if scaling else None,
        repairs=repairs,
        accounts=accounts,
        # Of a cluster that was joined nobody knows the processors.
        survey=Survey(
            database,
            observations,
            apps,
            has_bf16=state.head is not None and computes_bf16(),
        ),
    )


def deploys_of(config: PlatformConfig, kafka: KafkaSettings) -> dict[str, Deploy]:
    """How to deploy the apps that are of no version in the catalogue."""
    deadline_s = config.deploy_deadline_s

    def of_model(model: ModelSettings) -> Deploy:
        return lambda cluster: cluster.deploy_model(model, deadline_s=deadline_s)

    def of_pipeline(pipeline: PipelineSettings) -> Deploy:
        return lambda cluster: cluster.deploy_pipeline(kafka, pipeline, deadline_s=deadline_s)

    static = [model for model in config.models if not is_registered(model)]
    models = {app_name(model.name, model.version): of_model(model) for model in static}
    return models | {pipeline.app_name: of_pipeline(pipeline) for pipeline in config.pipelines}


def api_of(
    config: PlatformConfig, database: Database, operator: Operator, monitor: HealthMonitor
) -> uvicorn.Server:
    """The control API of a platform, not yet listening."""
    service = Service(
        database,
        ArtifactStore(config.artifact_store()),
        serving={m.name: serving_settings(m) for m in config.models if is_registered(m)},
        wake=operator.wake,
        health=monitor.latest,
        prices=config.prices,
    )
    settings = config.api
    options = uvicorn.Config(
        create_app(service, readiness=[monitor.require_fresh]),
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_certfile,
        ssl_keyfile=settings.tls_keyfile,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(options)


def _since_ms(database: Database) -> int:
    """From where telemetry is read: the oldest step that is still open."""
    now = datetime.now(UTC)
    with database.read() as reading:
        entered = [release.entered_at for release in open_releases(reading)]
    since = max(min([now, *entered]), now - OLDEST_TELEMETRY)
    return int(since.timestamp() * 1000)


def main() -> None:
    """Operate the platform whose configuration stands on stdin: it may hold passwords."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    serve(PlatformConfig.model_validate_json(sys.stdin.buffer.read()))


if __name__ == "__main__":
    main()
