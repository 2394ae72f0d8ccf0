"""Brings the platform on this machine up step by step, and takes it down.

Every step checks what runs and does only what is missing, so ``up`` repairs after any crash.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from ops.access.first_admin import ensure_local_admin
from ops.config.settings import EMBEDDED, PlatformConfig, RaySettings
from ops.errors import OpsError
from ops.platform import bootstrap, driver_process, operator_process, ray_head
from ops.platform.driver_process import (
    DriverReport,
    DriverTask,
    WatchedProcess,
    digest_of,
    pipelines_first,
)
from ops.platform.installation import STATE_FILE, PlatformState, alone, embedded_broker, token_path
from ops.platform.kafka_setup import ensure_groups, ensure_topics
from ops.processes import children as processes
from ops.processes.ports import free_port
from ops.serving.cluster import applications
from ops.serving.observed_app import observed
from serve.artifact import ModelCard, load
from serve.contract import AppName
from stream.kafka.admin import Admin
from stream.settings import PipelineSettings, secret_of

logger = logging.getLogger(__name__)

OnStep = Callable[[str], None]


def up(config: PlatformConfig, on_step: OnStep, *, apps: bool = True) -> PlatformState:
    """Bring up everything that the configuration names; what already runs is left alone.

    Args:
        on_step: Called with a description of each step.
        apps: False skips models and pipelines, and does not read their files.
    Raises:
        OpsError, StreamError, ServeError: A step failed. A platform that did not run before is
            then stopped again.
    """
    config.state_dir.mkdir(parents=True, exist_ok=True)
    with alone(config.state_dir):
        before = PlatformState.load(config.state_dir)
        state = before or PlatformState(instance=uuid.uuid4().hex)
        try:
            _Up(config, state, on_step).run(apps=apps)
        except BaseException:
            if before is None:
                on_step("Startup failed; stopping what was started")
                _end(config.state_dir, state, on_step)
            raise
        return state


def down(state_dir: Path, on_step: OnStep) -> bool:
    """Let the pipelines finish and stop everything that this installation started.

    Returns:
        False if nothing was running.
    Raises:
        OpsError: A process cannot be stopped.
    """
    if not state_dir.exists():
        return False
    with alone(state_dir):
        state = PlatformState.load(state_dir)
        if state is None:
            return False
        _end(state_dir, state, on_step)
        return True


class _Up:
    """The steps of ``up``, each of which checks the actual state first."""

    def __init__(self, config: PlatformConfig, state: PlatformState, on_step: OnStep) -> None:
        self._config = config
        self._state = state
        self._step = on_step
        self._database = bootstrap.opened(config)

    def run(self, *, apps: bool) -> None:
        if apps:
            bootstrap.require_fit(self._config, self._database, self._checked_models())
            bootstrap.register(self._config, self._database, self._step)
        now = datetime.now(UTC)
        if message := ensure_local_admin(self._database, self._config.state_dir, now=now):
            self._step(message)
        os.environ[processes.MARK] = self._state.instance
        self._save()
        self._ensure_broker()
        self._ensure_topics()
        if not (self._config.models or self._config.pipelines):
            return
        self._ensure_ray()
        if not apps:
            return
        self._ensure_apps()
        if self._config.operator:
            self._ensure_operator()

    def _checked_models(self) -> dict[str, ModelCard]:
        """Verify every model directory before anything is started; return the first card of each.

        Directories of one model are registered in their order, so the first one goes live.
        """
        cards: dict[str, ModelCard] = {}
        for model in self._config.models:
            cards.setdefault(model.name, load(model.path, task=model.task).card)
        return cards

    def _ensure_broker(self) -> None:
        kafka = self._config.kafka
        if kafka.bootstrap_servers == EMBEDDED:
            embedded = embedded_broker(self._config.state_dir)
            ran = embedded.is_running()
            self._step("Kafka: starting the embedded broker" if not ran else "Kafka: running")
            self._state.bootstrap_servers = embedded.start()
        else:
            self._state.bootstrap_servers = kafka.bootstrap_servers
        self._save()

    def _ensure_topics(self) -> None:
        with Admin(self._state.kafka(self._config.kafka)) as admin:
            created = ensure_topics(admin, self._config.pipelines)
            ours = {*self._state.apps, *_serve_apps(self._config.state_dir, self._state)}
            deployed = [p for p in self._config.pipelines if p.app_name in ours]
            new = [p for p in self._config.pipelines if p.app_name not in ours]
            ensure_groups(admin, new, deployed)
            idle = [idle_consumers(admin, pipeline) for pipeline in self._config.pipelines]
        self._step(f"Kafka: {self._state.bootstrap_servers}, {len(created)} topics created")
        for sentence in filter(None, idle):
            self._step(sentence)

    def _ensure_ray(self) -> None:
        settings, state = self._config.ray, self._state
        joined = _cluster_to_join(settings) if state.head is None else None
        if joined is not None:
            if joined != state.address:
                state.address, state.dashboard, state.apps = joined, "", {}
        elif state.head is None or not ray_head.is_running(state.head):
            self._step("Ray: starting a cluster on this machine")
            ray_head.stop(state.instance, self._config.state_dir)  # leftovers of a crash
            state.head = ray_head.start(settings, self._config.state_dir, state.instance)
            state.address, state.dashboard, state.apps = *state.head[:2], {}
        self._step(f"Ray: {state.address}")
        self._save()

    def _ensure_apps(self) -> None:
        running = _running_apps(self._config.state_dir, self._state)
        config = with_secrets(self._config)
        task = DriverTask(state=self._state.model_copy(deep=True), running=frozenset(running))
        watched = _watched(self._config.state_dir, self._state)
        driver_process.run(task, config, self._config.state_dir, watched, self._on_report)

    def _on_report(self, report: DriverReport) -> None:
        match report.kind:
            case "step":
                self._step(report.text)
                return
            case "dashboard":
                self._state.dashboard = report.text
            case "deployed":
                self._state.apps[report.text] = report.more
            case "removed":
                del self._state.apps[report.text]
        self._save()

    def _ensure_operator(self) -> None:
        config, state = self._config, self._state
        digest = digest_of(config, state.bootstrap_servers)
        if operator_process.is_supervised(state.instance):
            if state.operator_config == digest:
                self._step(f"Operator: {operator_process.fault(config.state_dir) or 'running'}")
                return
            self._step("Operator: restarting with the new configuration")
        operator_process.end(state.instance)
        settings = config.api
        settings = settings.model_copy(update={"port": settings.port or free_port()})
        scheme = "https" if settings.tls_certfile else "http"
        state.api = f"{scheme}://{settings.host}:{settings.port}"
        configuration = with_secrets(config.model_copy(update={"api": settings}))
        state.operator_pid = operator_process.start(config.state_dir, configuration, state.api)
        state.operator_config = digest
        self._save()
        log = config.state_dir / operator_process.LOG
        self._step(f"Operator: {state.api}, its log is {log}")

    def _save(self) -> None:
        self._state.save(self._config.state_dir)


def idle_consumers(admin: Admin, pipeline: PipelineSettings) -> str | None:
    """Return a sentence about the consumers that get no partition; None if all get one."""
    partitions = len(admin.partitions([*pipeline.input_topics]))
    idle = pipeline.consumers - partitions
    if idle <= 0:
        return None
    return (
        f"Pipeline {pipeline.name}: {idle} of its {pipeline.consumers} consumers will be idle, as "
        f"its input topics have {partitions} partitions in total"
    )


def with_secrets(config: PlatformConfig) -> bytes:
    """Return a configuration as JSON, passwords in clear text: for the pipe to a child process."""
    content = config.model_dump(mode="json")
    content["kafka"]["sasl_password"] = secret_of(config.kafka.sasl_password)
    content["kafka"]["ssl_password"] = secret_of(config.kafka.ssl_password)
    content["api"]["tls_password"] = secret_of(config.api.tls_password)
    if config.database is not None:
        content["database"] = config.database.get_secret_value()
    return orjson.dumps(content)


def _cluster_to_join(settings: RaySettings) -> str | None:
    if settings.address == "auto":
        return ray_head.running_elsewhere()
    return None if settings.address == "local" else settings.address


def _end(state_dir: Path, state: PlatformState, on_step: OnStep) -> None:
    """Stop everything that was started: the operator, pipelines, models, Ray, Kafka."""
    if operator_process.is_supervised(state.instance):
        on_step("Operator: stopping")
    operator_process.end(state.instance)
    if state.apps and _running_apps(state_dir, state):
        on_step("Pipelines: finishing records in flight")
        try:
            task = DriverTask(
                state=state, delete=tuple(pipelines_first(_own_apps(state_dir, state)))
            )
            config = with_secrets(PlatformConfig(state_dir=state_dir))
            watched = _watched(state_dir, state)
            driver_process.run(task, config, state_dir, watched, lambda _: None)
        except OpsError as exc:
            logger.warning("the apps could not be deleted in order: %s", exc)
    if state.head is not None:
        on_step("Ray: stopping")
    left = ray_head.stop(state.instance, state_dir)  # also one that the state lacks
    embedded = embedded_broker(state_dir)
    if embedded.is_running():
        on_step("Kafka: stopping")
        embedded.stop()
    left += processes.end(lambda: processes.marked(state.instance))
    if left:
        raise OpsError(f"these processes do not exit: {left}; inspect them with ps and kill them")
    (state_dir / STATE_FILE).unlink(missing_ok=True)


def _watched(state_dir: Path, state: PlatformState) -> list[WatchedProcess]:
    """Return the processes of this installation that a driver depends on."""
    watched = []
    if (head := state.head) is not None:
        log = state_dir / ray_head.LOG
        lives = partial(ray_head.is_alive, head)
        watched.append(WatchedProcess("Ray's head", log, lives, partial(ray_head.cause, log)))
    embedded = embedded_broker(state_dir)
    if embedded.is_running():
        watched.append(
            WatchedProcess("Kafka", embedded.log_file, embedded.is_running, embedded.cause)
        )
    return watched


def _own_apps(state_dir: Path, state: PlatformState) -> set[str]:
    """Return the apps that `up` or the operator deployed."""
    models = {AppName.parse(name).model for name in state.apps} - {""}
    running = _running_apps(state_dir, state)
    return set(state.apps) | {name for name in running if AppName.parse(name).model in models}


def _running_apps(state_dir: Path, state: PlatformState) -> set[str]:
    apps = _serve_apps(state_dir, state)
    return {name for name, app in apps.items() if observed(app).is_running}


def _serve_apps(state_dir: Path, state: PlatformState) -> dict[str, Any]:
    """Return all apps, whatever their status; none if Ray does not answer."""
    if not state.dashboard or not ray_head.api_answers(state.dashboard):
        return {}
    try:
        return applications(state.dashboard, token_path(state_dir, state))
    except OpsError:
        return {}
