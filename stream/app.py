"""The pipeline's Ray Serve adapter: one app per pipeline, one replica per consumer."""

from __future__ import annotations

import logging
from typing import Any

from ray import serve as ray_serve

from stream.client import ServeClient
from stream.errors import StreamError
from stream.settings import KafkaSettings, PipelineSettings
from stream.worker import Worker, WorkerState

DEPLOYMENT_NAME = "pipeline"
HEALTH_CHECK_PERIOD_S = 1.0
HEALTH_CHECK_TIMEOUT_S = 10.0
# Longer than a worker needs to finish its calls and commit.
SHUTDOWN_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0

logger = logging.getLogger(__name__)


class PipelineServer:
    """A consumer as a Ray Serve replica; its rank identifies it in the group."""

    def __init__(self, kafka: KafkaSettings, settings: PipelineSettings) -> None:
        self._kafka = kafka
        self._settings = settings
        logging.getLogger("kafka").setLevel(logging.WARNING)
        self._worker = self._start(_own_rank())

    def state(self) -> WorkerState:
        """Return the state of the consumer."""
        return self._worker.state()

    def check_health(self) -> None:
        """Raise if the consumer has ended or is stuck; Serve then replaces it.

        Serve may also have changed the replica's rank, after scaling down.

        Raises:
            StreamError: The consumer has ended or is stuck; the message has the reason.
        """
        rank = _own_rank()
        if rank != self._worker.rank:
            logger.info("rank changes from %d to %d", self._worker.rank, rank)
            self._worker.stop(timeout_s=STOP_TIMEOUT_S, leave=True)
            self._worker = self._start(rank)
        state = self._worker.state()
        if state.ended:
            raise StreamError(state.trouble or "the consumer has ended")
        if state.progress and state.progress.turned_s > self._settings.stall_timeout_s:
            raise StreamError(f"the loop has been stuck for {state.progress.turned_s:.0f} s")

    def __del__(self) -> None:
        """Finish and leave the group: Serve calls this when it removes the replica."""
        worker = getattr(self, "_worker", None)
        if worker is not None:
            worker.stop(timeout_s=STOP_TIMEOUT_S, leave=True)

    def _start(self, rank: int) -> Worker:
        return Worker(self._kafka, self._settings, rank=rank, client=ServeClient(self._settings))


def _own_rank() -> int:
    rank: Any = ray_serve.get_replica_context().rank
    return int(rank.rank) if rank is not None else 0


def build_app(kafka: KafkaSettings, settings: PipelineSettings) -> ray_serve.Application:
    """Describe the Serve app of one pipeline.

    Returns:
        An application for ``ray.serve.run(..., name=settings.app_name, route_prefix=None)``.
    """
    deployment = ray_serve.deployment(
        name=DEPLOYMENT_NAME,
        num_replicas=settings.consumers,
        max_ongoing_requests=8,
        max_queued_requests=32,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_S,
        graceful_shutdown_timeout_s=SHUTDOWN_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.2,
        ray_actor_options={"num_cpus": settings.num_cpus},
    )(PipelineServer)
    return deployment.bind(kafka, settings)
