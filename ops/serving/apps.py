"""Brings the Serve apps of model versions from their actual to their desired state.

Deploying takes seconds to minutes and is done in a thread; its progress is known to Serve itself,
so that an operator that takes over continues from there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ops.errors import OpsError
from ops.serving.cluster import Cluster, Node, applications, nodes, scale
from ops.serving.observed_app import ObservedApp, observed
from ops.serving.readiness import Readiness
from serve.contract import Answer, BatchReply, CallOptions
from serve.errors import ServeError
from serve.settings import ModelSettings
from stream.errors import StreamError

logger = logging.getLogger(__name__)

# Returns the settings of an app: its files may have to be fetched and are verified, so this is
# called only when it is deployed, outside the operator's rounds.
Make = Callable[[], ModelSettings]
# Time for calls that are still in flight to an app that is no longer needed.
GRACE_S = 5.0


class RayAccess(NamedTuple):
    """Access to the cluster.

    Attributes:
        connect: Connects as a driver; called once, when the first app is deployed.
        dashboard: URL of its API.
        token_path: Path of its token; None for a joined cluster.
    """

    connect: Callable[[], Cluster]
    dashboard: str
    token_path: Path | None


class Apps:
    """Brings apps to their desired state, one after the other; for one operator."""

    def __init__(self, ray: RayAccess, *, deadline_s: float) -> None:
        """Prepare; nothing is read or deployed yet.

        Args:
            deadline_s: Time limit of one deployment, in seconds.
        """
        self._ray = ray
        self._deadline_s = deadline_s
        self._cluster: Cluster | None = None
        self._connecting = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="apps")
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._faults: dict[str, str] = {}
        self._unwanted_since: dict[str, float] = {}
        self.found: Mapping[str, ObservedApp] = {}

    def refresh(self) -> None:
        """Read the actual state of all apps from Serve.

        Raises:
            NotRunning: Ray's API does not answer.
        """
        apps = applications(self._ray.dashboard, self._ray.token_path)
        self.found = {name: observed(app) for name, app in apps.items()}

    def reconcile(
        self, wanted: Mapping[str, Make], known: set[str], others: Container[str] = ()
    ) -> None:
        """Deploy what is missing and delete what is no longer needed.

        Args:
            wanted: The desired apps by name, each with how to get its settings.
            known: Names of apps that may be deleted.
            others: Apps that are managed elsewhere, but whose faults are kept here.
        """
        for name, make in wanted.items():
            self._unwanted_since.pop(name, None)
            if name not in self.found and name not in self._faults:
                self._begin(name, partial(self._deploy, name, make))
        now = time.monotonic()
        for name in (known & set(self.found)) - set(wanted):
            if now - self._unwanted_since.setdefault(name, now) > GRACE_S:
                self._begin(name, partial(self._delete, name))
        with self._lock:
            held = self._faults.items()
            self._faults = {name: why for name, why in held if name in wanted or name in others}

    def redeploy(self, name: str, work: Callable[[Cluster], object]) -> None:
        """Deploy an app again, replacing what runs of it; no effect while it is being deployed."""
        with self._lock:
            self._faults.pop(name, None)
        logger.info("%s: redeploying", name)
        self._begin(name, lambda: work(self._connected()))

    def fault(self, name: str) -> str | None:
        """Return why an app could not be deployed; None if nothing went wrong."""
        with self._lock:
            return self._faults.get(name)

    def is_busy(self, name: str) -> bool:
        """Return whether an app is being deployed or deleted."""
        with self._lock:
            return name in self._busy

    def nodes(self) -> list[Node]:
        """Return the machines of the cluster.

        Raises:
            NotRunning: Ray's API does not answer.
        """
        return nodes(self._ray.dashboard, self._ray.token_path)

    def load(self, name: str, *, age_s: float, deadline_s: float) -> Readiness:
        """Return the readiness of a version's replicas."""
        found = self.found.get(name)
        with self._lock:
            fault = self._faults.get(name)
            busy = name in self._busy
        ready = found is not None and found.is_running and not busy
        waiting_for = found.message if found else "it waits for another app to be deployed"
        return Readiness(ready, fault, age_s, deadline_s, waiting_for)

    def ask(self, model: str, label: str, values: list[bytes], options: CallOptions) -> list[Any]:
        """Return the answers of a served version, for its golden texts.

        Raises:
            StreamError, OpsError: The version does not answer.
        """
        reply = self.reply(model, label, values, options)
        return [o if isinstance(o, Answer) else None for o in reply.outcomes]

    def reply(
        self, model: str, label: str, values: list[bytes], options: CallOptions
    ) -> BatchReply:
        """Return the reply of one replica of a served version; raises what ``ask`` raises."""
        return self._connected().predict(model, label, values, options)

    def scale(self, name: str, replicas: int) -> None:
        """Set the number of replicas of an app without restarting any.

        Raises:
            NotRunning: Ray's API does not answer.
        """
        scale(self._ray.dashboard, self._ray.token_path, name, replicas)

    def close(self) -> None:
        """Stop the thread; all apps are left as they are."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _begin(self, name: str, work: Callable[[], object]) -> None:
        with self._lock:
            if name in self._busy:
                return
            self._busy.add(name)
        self._thread.submit(self._work, name, work)

    def _work(self, name: str, work: Callable[[], object]) -> None:
        fault: str | None = None
        try:
            work()
        except (OpsError, ServeError, StreamError) as exc:
            logger.warning("%s: %s", name, exc)
            fault = str(exc)
        except Exception as exc:
            # Ray's errors have no common base class; if one was missed, a release would never end.
            logger.exception("%s", name)
            fault = f"{type(exc).__name__}: {exc}"
        finally:
            with self._lock:
                self._busy.discard(name)
                if fault is not None:
                    self._faults[name] = fault

    def _deploy(self, name: str, make: Make) -> None:
        logger.info("%s: deploying", name)
        info = self._connected().deploy_model(make(), deadline_s=self._deadline_s)
        logger.info("%s: ready, %s %s on %s", name, info.engine, info.precision, info.device)

    def _delete(self, name: str) -> None:
        logger.info("%s: no longer in use, deleting", name)
        self._connected().delete([name])
        self._unwanted_since.pop(name, None)

    def _connected(self) -> Cluster:
        with self._connecting:  # a process connects once
            if self._cluster is None:
                self._cluster = self._ray.connect()
            return self._cluster
