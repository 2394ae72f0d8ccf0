"""What Serve's REST API says of one app; the only place that knows the shape of that answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

RUNNING = "RUNNING"
# Errors of ours are sentences, which need no class in front.
OUR_ERROR = re.compile(r"^(?:serve|stream|ops)\.errors\.\w+: ")


class ObservedApp(NamedTuple):
    """An app, as Serve tells.

    Attributes:
        replicas: Those that run.
        message: Why it is not running; empty where it is.
        target: Replicas that it shall have.
        resources: What each reserves, by Ray's names, such as CPU.
        nodes: Those that run, by the node they are on.
    """

    status: str
    replicas: int
    message: str
    target: int = 1
    resources: Mapping[str, float] = {}
    nodes: Mapping[str, int] = {}

    @property
    def is_running(self) -> bool:
        """Whether Serve calls it running."""
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
    """Why one of ``applications`` is not running; empty where nothing is said."""
    deployments = app.get("deployments", {}).values()
    return cause_of([app.get("message", ""), *(d.get("message", "") for d in deployments)])


def cause_of(messages: Sequence[str]) -> str:
    """What is wrong with an app, of all that Serve says of it and of its deployments.

    Serve puts the traceback of a replica that failed into one of them, whose end is the cause, and
    into another that some deployment has failed.

    Returns:
        A sentence; empty where nothing is said.
    """
    longest = max(messages, key=len, default="")
    lines = [line.strip() for line in longest.splitlines() if line.strip()]
    causes = [line for line in lines if "Error" in line or "errors." in line]
    if causes:
        return OUR_ERROR.sub("", causes[-1])
    return next((" ".join(message.split()) for message in messages if message.strip()), "")[:500]
