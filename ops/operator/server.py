"""The process that operates a platform; ``ops.platform.supervisor`` starts it.

Reads the pipelines' telemetry, runs the operator's loop, monitors health and serves the control
API, each in its own threads; the main thread waits for the end.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

import uvicorn
from sqlalchemy import Connection

from ops.access.transactions import utc_now
from ops.analysis.gathering import records_of
from ops.api.app import create_app
from ops.api.uploads import Uploads
from ops.catalogue.deployments import serving_settings
from ops.catalogue.store import ArtifactStore
from ops.config.scaling import ScalingSettings
from ops.config.settings import PlatformConfig
from ops.cost.metering import UsageMeter
from ops.cost.utilisation import LoadSampler, computes_bf16
from ops.errors import NotRunning, OpsError, PlatformError
from ops.health.restarts import record, update_alert
from ops.health.wiring import monitor_of
from ops.operator.loop import LEASE, LEASE_LASTS, Operator
from ops.operator.repairs import Deploy, Repairs
from ops.operator.upkeep import Scaling, Upkeep
from ops.operator.version_cleaner import VersionCleaner
from ops.platform.installation import PlatformState, connection, is_at_work, token_path
from ops.platform.supervisor import SupervisorNote, end_with_parent, yield_to_others
from ops.releases.facts import FactFinder
from ops.releases.releases import open_releases
from ops.scaling.backlog import BacklogReader
from ops.scaling.scaler import Scaler
from ops.service.service import Service
from ops.serving.apps import Apps, RayAccess
from ops.serving.nodes import Machines
from ops.sql.database import Database
from ops.sql.lease import last_held
from ops.telemetry.follower import follow
from ops.telemetry.observations import CONSUMER_SILENCE, Observations
from ops.view import PlatformView
from stream.control import publish
from stream.errors import StreamError
from stream.kafka.admin import Admin
from stream.kafka.sink import PlainProducer
from stream.schema import ControlRecord
from stream.settings import KafkaSettings, PipelineSettings, secret_of
from stream.times import to_ms

logger = logging.getLogger(__name__)

# Older telemetry belongs to no step that is still open.
OLDEST_TELEMETRY = timedelta(hours=3)
ADMIN_DEADLINE_S = 3.0
DEATHS_EVERY_S = 60.0


class Control:
    """Writes to the control topic; connects on the first write."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._producer: PlainProducer | None = None

    def publish(self, record: ControlRecord) -> None:
        """Implement ``RoutePublisher.publish``."""
        try:
            self._producer = self._producer or PlainProducer(self._kafka)
            publish(self._producer, record)
        except StreamError:
            if self._producer is not None:
                self._producer.close()
            self._producer = None
            raise


class OperatorServer:
    """All parts of a platform's operator, created from its configuration."""

    def __init__(
        self, config: PlatformConfig, state: PlatformState, holder: str | None = None
    ) -> None:
        """Create the parts without starting or connecting them.

        Args:
            holder: Name of the lease holder; may be that of a predecessor known to be dead.
        """
        self._config, self._kafka = config, state.kafka(config.kafka)
        self._owns_cluster = state.head is not None
        self._stopping = threading.Event()
        self._database = Database(config.database_url(), timeout_s=5.0)
        self._store = ArtifactStore(config.artifact_store(), staging=config.state_dir / "uploads")
        self._observations = Observations(counted_from_ms=int(time.time() * 1000), is_current=False)
        ray = RayAccess(
            connect=lambda: connection(config.state_dir, state),
            dashboard=state.dashboard,
            token_path=token_path(config.state_dir, state),
        )
        self._apps = Apps(ray, deadline_s=config.deploy_deadline_s)
        self._view = PlatformView(self._database, self._observations, self._apps)
        self._backlogs = BacklogReader(
            config.pipelines,
            lambda: Admin(self._kafka, deadline_s=ADMIN_DEADLINE_S),
            half_life_s=(config.scaling or ScalingSettings()).smoothing_s,
        )
        self._machines = Machines(self._apps.nodes, grows=not self._owns_cluster)
        self._operator = self._made_operator(holder)
        self._cleaner = VersionCleaner(
            self._database, self._store, leads=lambda: self._operator.leads, clock=utc_now
        )
        self._monitor = monitor_of(config, state, self._view)
        self._api = self._made_api()
        self._is_deaf = False

    def stop(self) -> None:
        """Stop the server; callable from any thread or signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Operate until stopped.

        Raises:
            OpsError: The database does not answer, or the control API does not listen.
        """
        self._database.migrate()
        self._record_deaths(record)
        kafka, stopping = self._kafka, self._stopping
        api = self._thread("api", self._answer)
        self._thread("telemetry", follow, kafka, self._observations, self._since_ms(), stopping)
        self._thread("backlogs", self._backlogs.run, stopping)
        self._thread("machines", self._machines.run, stopping)
        self._thread("retention", self._cleaner.run, stopping)
        ticking = partial(self._operator.run, stopping, tick_s=self._config.tick_s)
        operator = self._thread("operator", ticking)
        self._monitor.start()
        logger.info("operating")
        while not stopping.wait(DEATHS_EVERY_S):
            self._record_deaths(update_alert)
        self._api.should_exit = True
        self._operator.wake()
        self._monitor.stop()
        operator.join(30)
        api.join(5)
        self._database.close()
        if self._is_deaf:
            host, port = self._config.api.host, self._config.api.port
            raise PlatformError(f"the control API does not listen at {host}:{port}; see the log")

    def _answer(self) -> None:
        """Serve the API; if it ends, stop all, as the operator could no longer be commanded."""
        try:
            self._api.run()
        finally:
            self._is_deaf = not self._stopping.is_set()
            self._stopping.set()

    def _thread(self, name: str, work: Callable[..., object], *args: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=args, name=name, daemon=True)
        thread.start()
        return thread

    def _record_deaths(
        self, record: Callable[[Connection, SupervisorNote, datetime], None]
    ) -> None:
        """Record the supervisor's notes in the database; a failure is logged and retried later."""
        note = SupervisorNote.load(self._config.state_dir)
        if note is None or not note.deaths:
            return
        try:
            with self._database.begin() as connection:
                record(connection, note, datetime.now(UTC))
        except OpsError as exc:
            logger.warning("a restart was not recorded yet: %s", exc)

    def _since_ms(self) -> int:
        """Return where to start reading telemetry: the earliest of the oldest open step, the last
        heartbeats and the end of the last operator."""
        now = datetime.now(UTC)
        with self._database.read() as reading:
            entered = [release.entered_at for release in open_releases(reading)]
            led = last_held(reading, LEASE, LEASE_LASTS)  # no operator has read later telemetry
        heartbeats = now - CONSUMER_SILENCE
        since = max(min([heartbeats, *entered, led or heartbeats]), now - OLDEST_TELEMETRY)
        return to_ms(since)

    # --- parts ----------------------------------------------------------------------------

    def _made_operator(self, holder: str | None) -> Operator:
        config = self._config
        facts = FactFinder(
            self._view,
            self._store,
            cache_dir=config.state_dir / "versions",
            load_deadline_s=config.deploy_deadline_s,
        )
        return Operator(
            self._view,
            Control(self._kafka),
            facts,
            {model.name: model for model in config.models},
            clock=lambda: datetime.now(UTC),
            holder=holder,
            upkeep=self._made_upkeep(),
        )

    def _made_upkeep(self) -> Upkeep:
        """Create the operator's work in addition to releases."""
        config, scaling = self._config, self._config.scaling
        return Upkeep(
            UsageMeter(
                self._view,
                self._machines,
                least={model.name: model.replicas for model in config.models},
                pipelines=config.pipelines,
                prices=config.prices,
            ),
            self._made_repairs(),
            Scaling(
                self._view,
                Scaler(scaling, config.models, config.pipelines),
                self._machines,
                pipelines=config.pipelines,
                backlogs=self._backlogs,
            )
            if scaling
            else None,
            # The processors of a joined cluster are unknown.
            LoadSampler(self._view, has_bf16=self._owns_cluster and computes_bf16()),
        )

    def _made_repairs(self) -> Repairs:
        config = self._config
        return Repairs(
            self._view,
            self._backlogs,
            pipelines=config.pipelines,
            deploys=deploys_of(config, self._kafka),
            deadline_s=config.deploy_deadline_s,
            may=lambda: not is_at_work(config.state_dir),
        )

    def _records(self, model: str, since: datetime) -> Mapping[str, int]:
        return records_of(self._observations.windows(model, since_ms=to_ms(since)))

    def _made_api(self) -> uvicorn.Server:
        config, settings = self._config, self._config.api
        service = Service(
            self._database,
            self._store,
            serving={m.name: serving_settings(m) for m in config.models},
            wake=self._operator.wake,
            health=self._monitor.latest,
            prices=config.prices,
            records=self._records,
        )
        options = uvicorn.Config(
            create_app(
                service,
                readiness=[self._monitor.require_fresh],
                uploads=Uploads(max_bytes=settings.max_upload_bytes),
            ),
            host=settings.host,
            port=settings.port,
            ssl_certfile=settings.tls_certfile,
            ssl_keyfile=settings.tls_keyfile,
            ssl_keyfile_password=secret_of(settings.tls_password),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=3,
        )
        return uvicorn.Server(options)


def deploys_of(config: PlatformConfig, kafka: KafkaSettings) -> dict[str, Deploy]:
    """Return functions that deploy the consumers of each pipeline, by app name."""
    deadline_s = config.deploy_deadline_s

    def of_pipeline(pipeline: PipelineSettings) -> Deploy:
        return lambda cluster: cluster.deploy_pipeline(kafka, pipeline, deadline_s=deadline_s)

    return {pipeline.app_name: of_pipeline(pipeline) for pipeline in config.pipelines}


def main() -> None:
    """Operate the platform whose configuration is the first line of stdin, which stays open.

    Raises:
        NotRunning: The platform is not running.
        OpsError: The database does not answer, or the control API does not listen.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    yield_to_others()
    config = PlatformConfig.model_validate_json(sys.stdin.buffer.readline())
    state = PlatformState.load(config.state_dir)
    if state is None:
        raise NotRunning(
            f"no platform runs here ({config.state_dir}); start one with `bertstream up`"
        )
    server = OperatorServer(config, state, *sys.argv[1:2])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    orphaned = (server.stop, sys.stdin.fileno())
    threading.Thread(target=end_with_parent, args=orphaned, name="parent", daemon=True).start()
    server.run()


if __name__ == "__main__":
    main()
