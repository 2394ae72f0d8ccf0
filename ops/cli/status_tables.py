"""The state of the platform as tables for a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ops.embedded_kafka.status import BrokerStatus
from ops.platform.status import Status
from ops.serving.observed_app import RUNNING


def status_table(now: Status) -> Group:
    """Return apps and pipelines, one line each."""
    apps = Table(box=None, pad_edge=False)
    for column in ("app", "status", "replicas", "message"):
        apps.add_column(column, overflow="ellipsis", no_wrap=column != "message")
    for app in now.apps:
        colour = "green" if app.status == RUNNING else "red"
        state = Text(app.status, style=colour)
        apps.add_row(app.name, state, str(app.replicas), app.message[-300:])
    pipelines = Table(box=None, pad_edge=False)
    for column in ("pipeline", "lag", "records/s", "dead/s", "p50 ms", "p99 ms", "engine"):
        pipelines.add_column(column, justify="left" if column == "pipeline" else "right")
    for pipe in now.pipelines:
        pipelines.add_row(
            pipe.name,
            "?" if pipe.lag is None else str(pipe.lag),
            f"{pipe.records_per_s:.1f}",
            f"{pipe.dead_letters_per_s:.1f}",
            _ms(pipe.p50_ms),
            _ms(pipe.p99_ms),
            " ".join(filter(None, (pipe.engine, pipe.precision))) or "-",
        )
    problems = [
        Text(f"{pipe.name}: {pipe.trouble}", style="red") for pipe in now.pipelines if pipe.trouble
    ]
    problems += [
        Text(f"{pipe.name}: {held}", style="yellow") for pipe in now.pipelines for held in pipe.held
    ]
    head = f"Kafka {now.bootstrap_servers}   Ray {now.dashboard}"
    if now.operator is not None:
        head += f"   API {now.operator.api}"
        if not now.operator.running:
            problems.append(Text(f"operator: {now.operator.message}", style="red"))
    return Group(Text(head, style="dim"), apps, Text(""), pipelines, *problems)


def broker_lines(now: BrokerStatus) -> str:
    """Return the state of the embedded Kafka, one line per property."""
    memory = "-" if now.memory_bytes is None else f"{now.memory_bytes / 2**20:.0f} MiB"
    return (
        f"Kafka      {'running' if now.running else 'not running'}\n"
        f"address    {now.bootstrap_servers or '-'}\n"
        f"pid        {now.pid or '-'}\n"
        f"memory     {memory}\n"
        f"state dir  {now.state_dir}"
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
