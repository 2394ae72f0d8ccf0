"""The program of the child process in which ``up`` and ``down`` use Ray.

It brings up the apps of a configuration or deletes some, reports each step to its parent
(:mod:`ops.platform.driver_process`) and exits.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TextIO

from ops.config.settings import PlatformConfig
from ops.errors import OpsError
from ops.platform import bootstrap
from ops.platform.driver_process import LOG, DriverReport, DriverTask, digest_of, pipelines_first
from ops.platform.installation import connection
from ops.serving.cluster import Cluster
from serve.contract import AppName, app_name
from serve.errors import ServeError, first_line
from serve.settings import ModelSettings
from stream.errors import StreamError

logger = logging.getLogger(__name__)

Report = Callable[..., None]


class _Deployment:
    """Deploys the apps of a configuration that do not run with its settings yet."""

    def __init__(
        self, config: PlatformConfig, task: DriverTask, cluster: Cluster, report: Report
    ) -> None:
        self._config = config
        self._task = task
        self._kafka = task.state.kafka(config.kafka)
        self._cluster = cluster
        self._report = report
        self._database = bootstrap.opened(config)

    def run(self) -> None:
        served = bootstrap.served(self._config, self._database)
        for model in served:
            self._model(model)
        bootstrap.publish_routes(self._database, self._kafka)
        for pipeline in self._config.pipelines:
            name, digest = pipeline.app_name, digest_of(pipeline, self._kafka.bootstrap_servers)
            if not self._is_current(name, digest):
                self._cluster.deploy_pipeline(
                    self._kafka, pipeline, deadline_s=self._config.deploy_deadline_s
                )
                inputs = ", ".join(pipeline.input_topics)
                self._deployed(name, digest, f"{inputs} -> {pipeline.output_topic}")
        self._remove_stale(served)

    def _model(self, model: ModelSettings) -> None:
        name, digest = app_name(model.name, model.version), digest_of(model)
        if not self._is_current(name, digest):
            deadline_s = self._config.deploy_deadline_s
            info = self._cluster.deploy_model(model, deadline_s=deadline_s)
            self._deployed(name, digest, f"{info.engine} {info.precision} on {info.device}")

    def _is_current(self, name: str, digest: str) -> bool:
        current = name in self._task.running and self._task.state.apps.get(name) == digest
        self._report("step", f"{name}: {'running' if current else 'deploying'}")
        return current

    def _deployed(self, name: str, digest: str, what: str) -> None:
        self._report("deployed", name, digest)
        self._report("step", f"{name}: ready, {what}")

    def _remove_stale(self, served: list[ModelSettings]) -> None:
        """Delete apps of an earlier configuration, pipelines first; the operator handles versions
        of models that are still configured."""
        models = {model.name for model in self._config.models}
        wanted = {app_name(model.name, model.version) for model in served}
        wanted |= {pipeline.app_name for pipeline in self._config.pipelines}
        known = self._task.state.apps
        stale = pipelines_first(
            {n for n in known if n not in wanted and AppName.parse(n).model not in models}
        )
        if stale:
            self._report("step", f"Removing {', '.join(stale)}")
            self._cluster.delete(stale)
            for name in stale:
                self._report("removed", name)


def _do(task: DriverTask, config: PlatformConfig, report: Report) -> None:
    with connection(config.state_dir, task.state) as cluster:
        if task.delete is not None:
            cluster.delete(list(task.delete))
            return
        if not task.state.dashboard:
            report("dashboard", cluster.dashboard)
        _Deployment(config, task, cluster, report).run()


def main() -> None:
    """Do the task given on standard input, and exit when that input closes."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("kafka").setLevel(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    channel: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to the log

    def report(kind: str, text: str = "", more: str = "") -> None:
        message = DriverReport.model_validate({"kind": kind, "text": text, "more": more})
        channel.write(message.model_dump_json() + "\n")
        channel.flush()

    config = PlatformConfig.model_validate_json(sys.stdin.buffer.readline())
    task = DriverTask.model_validate_json(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        _do(task, config, report)
    except (OpsError, ServeError, StreamError) as exc:
        report("failed", str(exc), type(exc).__name__)
    except Exception as exc:
        logger.exception("the task failed")
        what = first_line(exc)
        report("failed", f"{type(exc).__name__}: {what}; see {config.state_dir / LOG}")
    else:
        report("done")


def _end_with_parent() -> None:
    """Exit at once when the parent closes the pipe or dies: Ray may block the main thread."""
    while os.read(sys.stdin.fileno(), 1):
        pass  # the parent sends nothing more
    os._exit(1)


if __name__ == "__main__":
    main()
