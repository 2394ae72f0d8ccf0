"""Calls model replicas through Ray Serve handles: the pipeline's Ray adapter for calls."""

from __future__ import annotations

from typing import Any

from ray import serve as ray_serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
    RequestCancelledError,
)

from serve.contract import BatchReply, ReplicaInfo, app_name
from serve.errors import EngineError, ParametersRefused
from stream.errors import CallFailed, CallLost, ModelUnavailable
from stream.settings import PipelineSettings

INFO_TIMEOUT_S = 10.0


class ServeClient:
    """Calls the replicas of one model, with one handle per version, created at its first call."""

    def __init__(self, settings: PipelineSettings) -> None:
        self._model = settings.model
        self._options = settings.call_options()
        self._timeout_s = settings.call_timeout_s
        self._handles: dict[str, Any] = {}

    def call(self, version: str, values: list[bytes]) -> BatchReply:
        """Call one replica; see ``ReplicaClient.call``."""
        handle = self._handle(version)
        reply: BatchReply = self._result(
            version, lambda: handle.predict.remote(values, self._options), self._timeout_s
        )
        return reply

    def info(self, version: str) -> ReplicaInfo:
        """Return information on the replicas; see ``ReplicaClient.info``."""
        handle = self._handle(version)
        info: ReplicaInfo = self._result(version, handle.info.remote, INFO_TIMEOUT_S)
        return info

    def _handle(self, version: str) -> Any:
        if version not in self._handles:
            name = app_name(self._model, version)
            try:
                self._handles[version] = ray_serve.get_app_handle(name)
            except (RayServeException, RayError) as exc:
                raise ModelUnavailable(f"{name} is not deployed: {exc}") from exc
        return self._handles[version]

    def _result(self, version: str, send: Any, timeout_s: float) -> Any:
        """Send, wait for the result, and raise errors of Ray as errors of this package."""
        name = app_name(self._model, version)
        response = send()
        try:
            return response.result(timeout_s=timeout_s)
        except TimeoutError as exc:
            response.cancel()
            raise CallLost(f"{name} did not answer within {timeout_s:g} s") from exc
        except (DeploymentUnavailableError, BackPressureError, ReplicaUnavailableError) as exc:
            self._handles.pop(version, None)
            raise ModelUnavailable(f"{name}: {exc}") from exc
        except (RayActorError, RequestCancelledError) as exc:
            raise CallLost(f"a replica of {name} died during the call: {exc}") from exc
        except ParametersRefused as exc:
            # Every record would fail: the pipeline waits for a version with these parameters.
            raise ModelUnavailable(f"{name} refuses the parameters: {exc.args[0]}") from exc
        except (RayTaskError, EngineError) as exc:
            raise CallFailed(f"{name} failed: {exc.args[0] if exc.args else exc}") from exc
        except (RayServeException, RayError) as exc:
            raise ModelUnavailable(f"{name}: {exc}") from exc
