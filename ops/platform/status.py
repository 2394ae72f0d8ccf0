"""Reads the status of the platform once: Ray's API, Kafka's lag and the telemetry topic."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ops.config.settings import PlatformConfig
from ops.errors import NotRunning, OpsError
from ops.platform import operator_process
from ops.platform.installation import PlatformState, token_path
from ops.serving.cluster import applications
from ops.serving.observed_app import RUNNING, observed
from serve.contract import AppName
from stream.errors import StreamError
from stream.kafka.admin import Admin
from stream.kafka.readers import recent_consumers, recent_telemetry
from stream.schema import ConsumerRecord, TelemetryRecord
from stream.settings import KafkaSettings, PipelineSettings
from stream.telemetry import merge, quantile

LAST_WORDS_S = 3600.0
# Transactions normally end sooner.
OPEN_S = 5.0
WINDOW_S = 30.0


class AppStatus(BaseModel):
    """One Serve app; ``message`` explains why it is not RUNNING."""

    name: str
    status: str
    replicas: int
    message: str


class PipelineStatus(BaseModel):
    """One pipeline over the last half minute.

    Attributes:
        lag: Records that can be read and are not yet committed; None if Kafka did not answer.
        held: One sentence for each producer's transaction that has been open for a while, with
            what waits behind it.
        p50_ms, p99_ms: From the input's timestamp to the commit; None without records that have
            a plausible timestamp.
        trouble: Why a consumer makes no progress at the moment, as it reported; where records
            wait and none is completed, the last error that a consumer recovered from.
    """

    name: str
    model: str
    status: str
    consumers: int
    lag: int | None
    held: list[str]
    records_per_s: float
    dead_letters_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    engine: str | None
    precision: str | None
    message: str
    trouble: str | None


class OperatorStatus(BaseModel):
    """The process that advances releases, scales and repairs.

    Attributes:
        message: Why it does not run; empty if it runs.
        api: URL of its control API.
    """

    running: bool
    message: str
    api: str


class Status(BaseModel):
    """The whole platform.

    Attributes:
        operator: None if the configuration disables it.
    """

    bootstrap_servers: str
    ray: str
    dashboard: str
    token_file: str | None
    healthy: bool
    operator: OperatorStatus | None
    apps: list[AppStatus]
    pipelines: list[PipelineStatus]


def status(config: PlatformConfig) -> Status:
    """Read the status of the whole platform.

    Raises:
        NotRunning: The platform is not up.
    """
    state = PlatformState.load(config.state_dir)
    if state is None:
        raise NotRunning(
            f"no platform runs here ({config.state_dir}); start one with `bertstream up`"
        )
    apps = _apps(config.state_dir, state)
    kafka = state.kafka(config.kafka)
    windows, consumers = _reported(kafka)
    pipelines = [
        _pipeline(settings, kafka, apps, windows, consumers) for settings in config.pipelines
    ]
    wanted = {settings.app_name for settings in config.pipelines}
    token = token_path(config.state_dir, state)
    operator = _operator(config.state_dir, state) if config.operator else None
    return Status(
        bootstrap_servers=state.bootstrap_servers,
        ray=state.address,
        dashboard=state.dashboard,
        token_file=str(token.resolve()) if token else None,
        healthy=all(name in apps and apps[name].status == RUNNING for name in wanted)
        and all(_is_served(model.name, apps) for model in config.models)
        and not any(pipeline.trouble for pipeline in pipelines)
        and (operator is None or operator.running),
        operator=operator,
        apps=list(apps.values()),
        pipelines=pipelines,
    )


def _operator(state_dir: Path, state: PlatformState) -> OperatorStatus:
    if not operator_process.is_supervised(state.instance):
        return OperatorStatus(
            running=False, message="not running; `bertstream up` starts it", api=state.api
        )
    fault = operator_process.fault(state_dir)
    return OperatorStatus(running=fault is None, message=fault or "", api=state.api)


def _apps(state_dir: Path, state: PlatformState) -> dict[str, AppStatus]:
    try:
        found = applications(state.dashboard, token_path(state_dir, state))
    except OpsError:
        return {}
    return {name: _app(name, app) for name, app in found.items()}


def _app(name: str, app: dict[str, Any]) -> AppStatus:
    found = observed(app)
    return AppStatus(name=name, status=found.status, replicas=found.replicas, message=found.message)


def _is_served(model: str, apps: dict[str, AppStatus]) -> bool:
    """Return whether any version of a model runs."""
    return any(
        app.status == RUNNING for name, app in apps.items() if AppName.parse(name).model == model
    )


def _reported(kafka: KafkaSettings) -> tuple[list[TelemetryRecord], list[ConsumerRecord]]:
    """Return what the pipelines reported recently; nothing if no broker answers."""
    now_ms = int(time.time() * 1000)
    try:
        windows = recent_telemetry(kafka, since_ms=now_ms - int(WINDOW_S * 1000))
        return windows, recent_consumers(kafka, since_ms=now_ms - int(LAST_WORDS_S * 1000))
    except StreamError:
        return [], []


def _pipeline(
    settings: PipelineSettings,
    kafka: KafkaSettings,
    apps: dict[str, AppStatus],
    windows: list[TelemetryRecord],
    consumers: list[ConsumerRecord],
) -> PipelineStatus:
    own = [window for window in windows if window.pipeline == settings.name]
    sums = merge(own) if own else None
    app = apps.get(settings.app_name)
    lag, held = _lag(settings, kafka)
    return PipelineStatus(
        name=settings.name,
        model=settings.model,
        status=app.status if app else "NOT RUNNING",
        consumers=app.replicas if app else 0,
        lag=lag,
        held=held,
        records_per_s=sums.answers / WINDOW_S if sums else 0.0,
        dead_letters_per_s=sum(sums.failures.values()) / WINDOW_S if sums else 0.0,
        p50_ms=quantile(sums.latency, 0.5) if sums else None,
        p99_ms=quantile(sums.latency, 0.99) if sums else None,
        engine=sums.engine if sums else None,
        precision=sums.precision if sums else None,
        message=app.message if app else "",
        trouble=_trouble(
            [one for one in consumers if one.pipeline == settings.name],
            stands=bool(lag) and not (sums and (sums.answers or sums.failures)),
            now_ms=int(time.time() * 1000),
        ),
    )


def _trouble(consumers: list[ConsumerRecord], *, stands: bool, now_ms: int) -> str | None:
    """Return the latest trouble of the consumers; if no record is completed, also what is past.

    Args:
        stands: Whether records wait and none is completed.
    """
    current = [
        (one.at_ms, one.trouble)
        for one in consumers
        if one.trouble and (stands or now_ms - one.at_ms <= WINDOW_S * 1000)
    ]
    past = [(one.last_error_ms or 0, one.last_error) for one in consumers if one.last_error]
    return max(current or (past if stands else []), default=(0, None))[1]


def _lag(settings: PipelineSettings, kafka: KafkaSettings) -> tuple[int | None, list[str]]:
    try:
        with Admin(kafka, deadline_s=3.0) as admin:
            offsets = admin.offsets(settings.name, [*settings.input_topics])
            held = [one for one in admin.held(offsets) if (one.open_s or OPEN_S) >= OPEN_S]
    except StreamError:
        return None, []
    return sum(at.lag for at in offsets.values()), [one.sentence() for one in held]
