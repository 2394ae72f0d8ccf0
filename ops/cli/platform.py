"""Commands that start, stop and show the platform, the embedded Kafka and the configuration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ops.cli.options import STATE_DIR, ConfigOption, JsonOption, StateOption
from ops.cli.terminal import (
    EXIT_USAGE,
    StepPrinter,
    configuration,
    err,
    errors_in_words,
    json_line,
    out,
)
from ops.config.state_dir import state_dir_of

if TYPE_CHECKING:
    from ops.config.settings import PlatformConfig

WATCH_S = 5.0

broker_app = typer.Typer(help="Manage the embedded Kafka.", no_args_is_help=True)
config_app = typer.Typer(help="Check the configuration file.", no_args_is_help=True)


def up(
    config: ConfigOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return and leave the platform running.")
    ] = False,
) -> None:
    """Start Kafka, Ray, models and pipelines; whatever runs already is left alone."""
    from ops.platform import bring_up

    with errors_in_words():
        settings = configuration(config)
        with StepPrinter() as step:
            bring_up.up(settings, step)
        if detach:
            _show_addresses(settings)
            out.print("Running. `bertstream status` shows it, `bertstream down` stops it.")
            return
        try:
            _show_addresses(settings)
            out.print("Running. Ctrl-C stops it.")
            _watch(settings)
        except KeyboardInterrupt:
            err.print()
        finally:
            with StepPrinter() as step:
                bring_up.down(settings.state_dir, step)


def _show_addresses(settings: PlatformConfig) -> None:
    from ops.platform.status import status as read_status

    now = read_status(settings)
    out.print(f"Kafka          {now.bootstrap_servers}")
    out.print(f"Ray dashboard  {now.dashboard}")
    token = now.token_file or "the token of the joined cluster"
    out.print(f"  its token    {token}", soft_wrap=True)


def _watch(settings: PlatformConfig) -> NoReturn:
    """Show the pipelines every ``WATCH_S`` seconds until the command is interrupted."""
    from ops.cli.status_tables import status_table
    from ops.platform.status import status as read_status

    while True:
        time.sleep(WATCH_S)
        out.print(status_table(read_status(settings)))


def down(state_dir: StateOption = STATE_DIR) -> None:
    """Let the pipelines finish and stop everything that `up` started."""
    from ops.platform import bring_up

    with errors_in_words():
        place = state_dir_of(state_dir)
        with StepPrinter() as step:
            ended = bring_up.down(place, step)
        if not ended:
            out.print(f"Nothing runs here ({place}).")


def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show apps, lag, rate and latency; exit code 1 if something does not run."""
    from ops.cli.status_tables import status_table
    from ops.platform.status import status as read_status

    with errors_in_words():
        now = read_status(configuration(config))
        if as_json:
            json_line(now.model_dump_json())
        else:
            out.print(status_table(now))
        if not now.healthy:
            raise typer.Exit(1)


@broker_app.command("start")
def broker_start(state_dir: StateOption = STATE_DIR) -> None:
    """Start the embedded Kafka and leave it running."""
    from ops.platform.installation import embedded_broker

    with errors_in_words():
        embedded = embedded_broker(state_dir_of(state_dir))
        StepPrinter()("Kafka: starting")
        out.print(embedded.start())


@broker_app.command("stop")
def broker_stop(state_dir: StateOption = STATE_DIR) -> None:
    """Stop the embedded Kafka and keep its data."""
    from ops.platform.installation import embedded_broker

    with errors_in_words():
        place = state_dir_of(state_dir)
        embedded = embedded_broker(place)
        if embedded.is_running():
            embedded.stop()
        else:
            out.print(f"No broker runs here ({place}).")


@broker_app.command("status")
def broker_status(state_dir: StateOption = STATE_DIR, as_json: JsonOption = False) -> None:
    """Show address, process and memory of the embedded Kafka; exit code 1 if it does not run."""
    from ops.cli.status_tables import broker_lines
    from ops.embedded_kafka import status as status_of_broker
    from ops.platform.installation import embedded_broker

    with errors_in_words():
        now = status_of_broker.broker_status(embedded_broker(state_dir_of(state_dir)))
        if as_json:
            json_line(now.model_dump_json())
        else:
            out.print(broker_lines(now), markup=False, soft_wrap=True)
        if not now.running:
            raise typer.Exit(1)


@config_app.command("check")
def config_check(file: Annotated[Path, typer.Argument()] = Path("bertstream.yaml")) -> None:
    """List every mistake in the file with its line and column; exit code 2 if there is one."""
    from ops.config.file import check
    from ops.problems import ProblemSeverity

    problems = check(file)
    for problem in problems:
        out.print(problem.located_in(file), markup=False, soft_wrap=True)
    if any(problem.severity == ProblemSeverity.ERROR for problem in problems):
        raise typer.Exit(EXIT_USAGE)
    out.print(f"{file}: {'usable' if problems else 'valid'}")
