"""The Serve apps of model versions: what is there, and what must be made or taken away.

Deploying takes seconds to minutes and is done in a thread; how far it is, Serve itself knows, so
that an operator that takes over goes on from there.
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

# Finds out what an app is made of: its files may have to be fetched and are compared, so this is
# asked only when it is deployed, and beside the operator's rounds.
Make = Callable[[], ModelSettings]
# What may still be on its way to an app that is no longer wanted.
GRACE_S = 5.0


class RayAccess(NamedTuple):
    """How to reach the cluster.

    Attributes:
        connect: As a driver; called once, when the first app is deployed.
        dashboard: URL of its API.
        token_path: Of its token; None for a cluster that was joined.
    """

    connect: Callable[[], Cluster]
    dashboard: str
    token_path: Path | None


class Apps:
    """Brings what is there to what is wanted, one app after the other; for one operator."""

    def __init__(self, ray: RayAccess, *, deadline_s: float) -> None:
        """Look and do nothing yet.

        Args:
            deadline_s: Of one deployment.
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
        """Ask Serve how its apps stand.

        Raises:
            NotRunning: Ray's API does not answer.
        """
        apps = applications(self._ray.dashboard, self._ray.token_path)
        self.found = {name: observed(app) for name, app in apps.items()}

    def reconcile(
        self, wanted: Mapping[str, Make], known: set[str], others: Container[str] = ()
    ) -> None:
        """Deploy what is missing and take away what is not wanted any more.

        Args:
            wanted: By name of the app, how to find out what it is made of.
            known: Names that are ours to take away.
            others: Apps that somebody else sees to, and whose faults are remembered all the same.
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
        """Deploy an app anew: what runs of it is replaced; nothing where it is at that already."""
        with self._lock:
            self._faults.pop(name, None)
        logger.info("%s: deploying it anew", name)
        self._begin(name, lambda: work(self._connected()))

    def fault(self, name: str) -> str | None:
        """Why an app could not be deployed; None where nothing was wrong with it."""
        with self._lock:
            return self._faults.get(name)

    def is_busy(self, name: str) -> bool:
        """Whether an app is being deployed or taken away."""
        with self._lock:
            return name in self._busy

    def nodes(self) -> list[Node]:
        """The machines of the cluster.

        Raises:
            NotRunning: Ray's API does not answer.
        """
        return nodes(self._ray.dashboard, self._ray.token_path)

    def load(self, name: str, *, age_s: float, deadline_s: float) -> Readiness:
        """How a version's replicas stand."""
        found = self.found.get(name)
        with self._lock:
            fault = self._faults.get(name)
            busy = name in self._busy
        ready = found is not None and found.is_running and not busy
        waiting_for = found.message if found else "it waits for another app to be deployed"
        return Readiness(ready, fault, age_s, deadline_s, waiting_for)

    def ask(self, model: str, label: str, values: list[bytes], options: CallOptions) -> list[Any]:
        """Answers of a served version; for its golden texts.

        Raises:
            StreamError, OpsError: It does not answer.
        """
        reply = self.reply(model, label, values, options)
        return [o if isinstance(o, Answer) else None for o in reply.outcomes]

    def reply(
        self, model: str, label: str, values: list[bytes], options: CallOptions
    ) -> BatchReply:
        """What one replica of a served version says; errors as for ``ask``."""
        return self._connected().predict(model, label, values, options)

    def scale(self, name: str, replicas: int) -> None:
        """Set the number of replicas of an app without restarting any.

        Raises:
            NotRunning: Ray's API does not answer.
        """
        scale(self._ray.dashboard, self._ray.token_path, name, replicas)

    def close(self) -> None:
        """Leave everything as it is."""
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
            # Ray's own errors have no common root; unheard, the release would wait for ever.
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
        logger.info("%s: nobody uses it any more, taking it away", name)
        self._connected().delete([name])
        self._unwanted_since.pop(name, None)

    def _connected(self) -> Cluster:
        with self._connecting:  # a process connects once
            if self._cluster is None:
                self._cluster = self._ray.connect()
            return self._cluster
