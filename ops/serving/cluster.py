"""The only module of ``ops`` that imports Ray: deploys apps, waits for, calls and deletes them.

ray is imported when the first function needs it: the import takes seconds, and it reads the
environment only once, which must be set before.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from ops.errors import ClusterUnreachable, DeployFailed, NoCapacity, NotRunning
from ops.processes.start_limits import Patience
from ops.serving.observed_app import RUNNING, cause_of
from serve.contract import AppName, BatchReply, CallOptions, ReplicaInfo, app_name
from serve.settings import ModelSettings
from stream.settings import KafkaSettings, PipelineSettings

logger = logging.getLogger(__name__)

NAMESPACE = "serve"
POLL_S = 0.25
REST_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 60.0
# The platform's own cluster does not grow: what is not placed within this time never will be.
CAPACITY_DEADLINE_S = 30.0
# The one deployment within an app, as ``serve.app`` and ``stream.app`` name it.
MODEL_DEPLOYMENT = "replica"
PIPELINE_DEPLOYMENT = "pipeline"
# The label in which KubeRay names the group of a node.
NODE_GROUP = "ray.io/node-group"
MAX_NODES = 1000
FAILED = {"DEPLOY_FAILED", "UNHEALTHY"}


class Wanted(NamedTuple):
    """Resources that an app reserves on the cluster.

    Attributes:
        replicas: Number of replicas.
        cpus, gpus: What one replica reserves.
    """

    replicas: int
    cpus: float
    gpus: float = 0.0

    def each(self) -> dict[str, float]:
        """Return what one replica reserves, by Ray's names."""
        return {"CPU": self.cpus, "GPU": self.gpus}


class Cluster:
    """A connection to the cluster as a driver; a context manager, one at a time."""

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        """Connect.

        Args:
            address: ``host:port``, or ``auto`` for the one that RAY_ADDRESS names.
            environment: Environment variables that drivers of the platform's own cluster need;
                empty for a joined cluster, which may grow when it is full.
        Raises:
            ClusterUnreachable: The cluster does not answer.
        """
        os.environ.update(environment)
        import ray
        import ray.serve  # before its logger is silenced below

        try:
            with _sigterm_kept():
                context = ray.init(
                    address=address,
                    namespace=NAMESPACE,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=False,
                )
        except (ConnectionError, RuntimeError, ValueError) as exc:
            raise ClusterUnreachable(
                f"no Ray cluster answers at {address}: {exc}. Check ray.address; "
                "ray.address: local starts one."
            ) from exc
        # The caller reports what matters; Serve's own progress does not belong on the terminal.
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        self.dashboard = f"http://{context.dashboard_url}" if context.dashboard_url else ""
        self.address: str = context.address_info["gcs_address"]
        self._grows = not environment

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        import ray

        with _sigterm_kept():
            ray.shutdown()

    def deploy_model(self, settings: ModelSettings, *, deadline_s: float) -> ReplicaInfo:
        """Deploy a version and wait until its replicas answer.

        Raises:
            NoCapacity: The cluster lacks the capacity for a replica.
            DeployFailed: A replica cannot be built.
        """
        from serve.app import build_app

        name = app_name(settings.name, settings.version)
        wanted = Wanted(settings.replicas, settings.num_cpus, settings.num_gpus)
        self._deploy(name, build_app(settings), wanted, deadline_s)
        info: ReplicaInfo = self._handle(name).info.remote().result(timeout_s=CALL_TIMEOUT_S)
        return info

    def deploy_pipeline(
        self, kafka: KafkaSettings, settings: PipelineSettings, *, deadline_s: float
    ) -> None:
        """Deploy a pipeline and wait until its consumers run; raises as ``deploy_model`` does."""
        from stream.app import build_app

        wanted = Wanted(settings.consumers, settings.num_cpus)
        self._deploy(settings.app_name, build_app(kafka, settings), wanted, deadline_s)

    def delete(self, names: list[str]) -> None:
        """Delete apps; each finishes what it has begun. Unknown names are ignored.

        Raises:
            ClusterUnreachable: The cluster died, or an app has not ended within a minute.
        """
        from ray import serve as ray_serve
        from ray.exceptions import RayError

        for name in names:
            try:
                ray_serve.delete(name, _blocking=True)
            except (RayError, TimeoutError) as exc:
                raise ClusterUnreachable(f"{name} could not be deleted: {exc}") from exc

    def predict(
        self, model: str, version: str, values: list[bytes], options: CallOptions
    ) -> BatchReply:
        """Have a served version answer, in the same way as a pipeline's call."""
        from stream.client import ServeClient

        settings = PipelineSettings(
            name="predict",
            model=model,
            input_topics=("-",),
            output_topic="-",
            format=options.format,
            fields=options.fields,
            long_text=options.long_text,
            window_stride=options.window_stride,
            parameters=options.parameters,
        )
        return ServeClient(settings).call(version, values)

    def _deploy(self, name: str, app: Any, wanted: Wanted, deadline_s: float) -> None:
        from ray import serve as ray_serve
        from ray.serve.api import RunTarget, run_many

        self._check_size(name, wanted)
        ray_serve.start(proxy_location="Disabled")
        run_many(
            [RunTarget(app, name=name, route_prefix=None, external_scaler_enabled=True)],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        try:
            self._wait(name, wanted, deadline_s)
        except (NoCapacity, DeployFailed):
            ray_serve.delete(name, _blocking=False)
            raise

    def _wait(self, name: str, wanted: Wanted, deadline_s: float) -> None:
        from ray import serve as ray_serve

        patience = Patience(deadline_s)
        capacity_deadline_s = deadline_s if self._grows else min(CAPACITY_DEADLINE_S, deadline_s)
        while True:
            app = ray_serve.status().applications.get(name)
            state = str(app.status.value) if app else "NOT_STARTED"
            if app and state == RUNNING:
                return
            messages = [app.message, *(d.message for d in app.deployments.values())] if app else []
            why = cause_of(messages)
            if state in FAILED:
                raise DeployFailed(f"{name} does not start: {why}")
            if patience.waited_s > capacity_deadline_s:
                self._check_capacity(name, wanted)
            if patience.is_over():
                last = f"{state}: {why}" if why else state
                raise DeployFailed(
                    f"{name} was not ready within {patience} ({last}); raise deploy_deadline_s, "
                    "or see its log"
                )
            time.sleep(POLL_S)

    def _check_size(self, name: str, wanted: Wanted) -> None:
        """Refuse an app that exceeds the total capacity of the platform's own cluster."""
        import ray

        total, free = ray.cluster_resources(), ray.available_resources()
        for resource, amount in wanted.each().items():
            if not self._grows and amount * wanted.replicas > total.get(resource, 0.0):
                raise NoCapacity(_no_capacity(name, wanted, resource, free=free, total=total))

    def _check_capacity(self, name: str, wanted: Wanted) -> None:
        """Refuse an app with an unplaced replica that exceeds the free capacity."""
        import ray

        total, free = ray.cluster_resources(), ray.available_resources()
        for resource, amount in wanted.each().items():
            if amount > free.get(resource, 0.0) and self._is_unplaced(name):
                raise NoCapacity(_no_capacity(name, wanted, resource, free=free, total=total))

    def _is_unplaced(self, name: str) -> bool:
        app = applications(self.dashboard, None).get(name, {})
        deployments = app.get("deployments", {}).values()
        replicas = [r for deployment in deployments for r in deployment.get("replicas", ())]
        return any(r.get("state") == "STARTING" and not r.get("node_id") for r in replicas)

    def _handle(self, name: str) -> Any:
        from ray import serve as ray_serve

        return ray_serve.get_app_handle(name)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM: Ray replaces it, and later leaves the default."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def applications(dashboard: str, token_path: Path | None) -> dict[str, Any]:
    """Return every app with its status and replicas from Ray's REST API; does not import ray.

    Raises:
        NotRunning: The API does not answer.
    """
    answer = _ask(f"{dashboard}/api/serve/applications/", token_path)
    found: dict[str, Any] = answer.get("applications", {})
    return found


def scale(dashboard: str, token_path: Path | None, app: str, replicas: int) -> None:
    """Set the number of a model's replicas or a pipeline's consumers without restarting any.

    Raises:
        NotRunning: The API does not answer, or refuses.
    """
    deployment = PIPELINE_DEPLOYMENT if AppName.parse(app).pipeline else MODEL_DEPLOYMENT
    place = f"{quote(app)}/deployments/{deployment}/scale"
    content = orjson.dumps({"target_num_replicas": replicas})
    _ask(f"{dashboard}/api/v1/applications/{place}", token_path, content)


class Node(NamedTuple):
    """A machine of the cluster.

    Attributes:
        kind: The group assigned by the cluster's configuration; None if it assigns none.
        resources: Total resources, by Ray's names.
    """

    id: str
    kind: str | None
    resources: Mapping[str, float]


def nodes(dashboard: str, token_path: Path | None) -> list[Node]:
    """Return the machines that are alive, from Ray's state API.

    Raises:
        NotRunning: The API does not answer.
    """
    answer = _ask(f"{dashboard}/api/v0/nodes?detail=true&limit={MAX_NODES}", token_path)
    found = answer.get("data", {}).get("result", {}).get("result", ())
    return [
        Node(node["node_id"], (node.get("labels") or {}).get(NODE_GROUP), node["resources_total"])
        for node in found
        if node.get("state") == "ALIVE"
    ]


def _ask(url: str, token_path: Path | None, content: bytes | None = None) -> dict[str, Any]:
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    token = _token(token_path)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=REST_TIMEOUT_S) as answer:
            found: dict[str, Any] = orjson.loads(answer.read() or b"{}")
            return found
    except (OSError, orjson.JSONDecodeError) as exc:
        raise NotRunning(f"Ray's API at {url} does not answer: {exc}") from exc


def _token(token_path: Path | None) -> str:
    places = [token_path, os.environ.get("RAY_AUTH_TOKEN_PATH"), Path.home() / ".ray/auth_token"]
    if token_path is None and "RAY_AUTH_TOKEN" in os.environ:
        return os.environ["RAY_AUTH_TOKEN"]
    for place in places:
        if place and Path(place).is_file():
            return Path(place).read_text().strip()
    return ""


def _no_capacity(
    name: str,
    wanted: Wanted,
    resource: str,
    *,
    free: Mapping[str, float],
    total: Mapping[str, float],
) -> str:
    each, count = wanted.each()[resource], wanted.replicas
    times = f", {count} times" if count > 1 else ""
    return (
        f"{name} needs {each:g} {resource}{times}, and the cluster has "
        f"{total.get(resource, 0.0):g}, {free.get(resource, 0.0):g} of them free: lower "
        f"num_{resource.lower()}s, replicas or consumers, or enlarge the cluster"
    )
