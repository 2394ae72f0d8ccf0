"""The Ray Serve adapter of ``serve``: one app for each version of a model.

Owns the deployment's options and its health check; ``replica`` computes the answers.
"""

from __future__ import annotations

import logging
from typing import Any

from ray import serve as ray_serve

from serve.contract import BatchReply, CallOptions, ReplicaInfo
from serve.echo import EchoReplica
from serve.errors import EngineError
from serve.replica import Replica
from serve.settings import ModelSettings

DEPLOYMENT_NAME = "replica"
# Failures in a row, without an answer in between, that mean a broken engine, not a bad record.
MAX_ENGINE_FAILURES = 5
HEALTH_CHECK_PERIOD_S = 2.0
HEALTH_CHECK_TIMEOUT_S = 10.0
# Callers limit their calls in flight; the queue limits those that do not.
MAX_QUEUED_CALLS = 64
SHUTDOWN_TIMEOUT_S = 20.0
SHUTDOWN_WAIT_LOOP_S = 0.2

logger = logging.getLogger(__name__)


class ReplicaServer:
    """A replica as a Ray Serve deployment; its methods run in Serve's threads."""

    def __init__(self, settings: ModelSettings) -> None:
        kind = EchoReplica if settings.engine.kind == "echo" else Replica
        self._replica: Replica | EchoReplica = kind(settings)
        self._engine_failures = 0

    def predict(self, values: list[bytes], options: CallOptions) -> BatchReply:
        """Answer each value; see ``contract.Predictor``."""
        try:
            reply = self._replica.predict(values, options)
        except EngineError:
            self._engine_failures += 1
            logger.exception("the engine failed on %d records", len(values))
            raise
        self._engine_failures = 0
        return reply

    def info(self) -> ReplicaInfo:
        """Return the identity of the replica."""
        return self._replica.info()

    def check_health(self) -> None:
        """Raise when the engine keeps failing; Serve then replaces the replica.

        Raises:
            EngineError: The last calls all failed. Retriable, by another replica.
        """
        if self._engine_failures >= MAX_ENGINE_FAILURES:
            raise EngineError(f"the engine failed {self._engine_failures} times in a row")

    def __del__(self) -> None:
        """Free the engine; Serve calls this when the calls in progress have ended."""
        if hasattr(self, "_replica"):
            self._replica.close()


def build_app(settings: ModelSettings) -> ray_serve.Application:
    """Describe the Serve app of one version of a model.

    Args:
        settings: Settings of the version.
    Returns:
        An application for ``ray.serve.run(..., name=contract.app_name(...), route_prefix=None)``.
    """
    deployment = ray_serve.deployment(
        name=DEPLOYMENT_NAME,
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.max_ongoing_calls,
        max_queued_requests=MAX_QUEUED_CALLS,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=HEALTH_CHECK_TIMEOUT_S,
        graceful_shutdown_timeout_s=SHUTDOWN_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=SHUTDOWN_WAIT_LOOP_S,
        ray_actor_options=_actor_options(settings),
    )(ReplicaServer)
    return deployment.bind(settings)


def _actor_options(settings: ModelSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus}
    if settings.engine.threads:
        # Otherwise Ray sets the threads from num_cpus, which is a reservation and often 0.5.
        threads = str(settings.engine.threads)
        options["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": threads}}
    return options
