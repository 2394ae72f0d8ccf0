"""Reads what Serve's REST API reports of one app; no other module knows that format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

RUNNING = "RUNNING"
# Our own errors are sentences, which need no class name in front.
OUR_ERROR = re.compile(r"^(?:serve|stream|ops)\.errors\.\w+: ")


class ObservedApp(NamedTuple):
    """An app, as Serve reports it.

    Attributes:
        replicas: Number of running replicas.
        message: Why the app is not running; empty if it is.
        target: Number of replicas that it should have.
        resources: What each replica reserves, by Ray's names, such as CPU.
        nodes: Number of running replicas by node.
    """

    status: str
    replicas: int
    message: str
    target: int = 1
    resources: Mapping[str, float] = {}
    nodes: Mapping[str, int] = {}

    @property
    def is_running(self) -> bool:
        """Return whether Serve reports it as running."""
        return self.status == RUNNING


def observed(app: Mapping[str, Any]) -> ObservedApp:
    """Read one entry of ``cluster.applications``."""
    deployments = app.get("deployments", {}).values()
    running = [r for d in deployments for r in d.get("replicas", ()) if r.get("state") == RUNNING]
    return ObservedApp(
        app.get("status", "UNKNOWN"),
        len(running),
        fault_of(app),
        target=sum(d.get("target_num_replicas", 0) for d in deployments),
        resources=next((d.get("required_resources", {}) for d in deployments), {}),
        nodes=Counter(str(replica.get("node_id")) for replica in running),
    )


def fault_of(app: Mapping[str, Any]) -> str:
    """Return why one of ``applications`` is not running; empty if nothing is reported."""
    deployments = app.get("deployments", {}).values()
    return cause_of([app.get("message", ""), *(d.get("message", "") for d in deployments)])


def cause_of(messages: Sequence[str]) -> str:
    """Return what is wrong with an app, from Serve's messages about it and its deployments.

    One message has the traceback of a failed replica, which ends with the cause; another only
    reports that some deployment has failed.

    Returns:
        A sentence; empty if nothing is reported.
    """
    longest = max(messages, key=len, default="")
    lines = [line.strip() for line in longest.splitlines() if line.strip()]
    causes = [line for line in lines if "Error" in line or "errors." in line]
    if causes:
        return OUR_ERROR.sub("", causes[-1])
    return next((" ".join(message.split()) for message in messages if message.strip()), "")[:500]
