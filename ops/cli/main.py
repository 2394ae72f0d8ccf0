"""The command ``bertstream``: lists every command and imports the one that is called.

Commands import heavy libraries late: ``--help`` needs neither torch nor ray nor a Kafka client.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from ops.cli.terminal import log_everything

# In the order of ``--help``: the module of each command, and its name there.
COMMANDS = {
    "up": ("ops.cli.platform", "up"),
    "down": ("ops.cli.platform", "down"),
    "status": ("ops.cli.platform", "status"),
    "produce": ("ops.cli.records", "produce"),
    "consume": ("ops.cli.records", "consume"),
    "predict": ("ops.cli.prediction", "predict"),
    "import": ("ops.cli.importing", "import_"),
    "combine": ("ops.cli.importing", "combine"),
    "demo-release": ("ops.demo.commands", "demo_release"),
    "demo": ("ops.demo.commands", "demo"),
    "broker": ("ops.cli.platform", "broker_app"),
    "config": ("ops.cli.platform", "config_app"),
    "train": ("ops.cli.training", "train_app"),
    "models": ("ops.cli.models", "app"),
    "policy": ("ops.cli.policies", "app"),
    "release": ("ops.cli.releases", "app"),
    "rollback": ("ops.cli.releases", "rollback"),
    "people": ("ops.cli.people", "people_app"),
    "team": ("ops.cli.people", "team_app"),
    "grant": ("ops.cli.grants", "grant_app"),
    "token": ("ops.cli.grants", "token_app"),
    "ledger": ("ops.cli.ledger", "app"),
    "cost": ("ops.cli.cost", "cost"),
    "alerts": ("ops.cli.cost", "alerts"),
    "health": ("ops.cli.health", "health"),
}


class _LateCommands(TyperGroup):
    """Imports and builds a command of ``COMMANDS`` only when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            self.add_command(_built(cmd_name), cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            for name in COMMANDS:  # the nearest name is suggested
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


def _built(name: str) -> Any:
    module, attribute = COMMANDS[name]
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False)
    alone.command(name)(found)
    return get_command(alone)


app = typer.Typer(
    cls=_LateCommands,
    help="Send text events from Kafka through BERT replicas and back to Kafka, exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command; SIGTERM is handled like Ctrl-C."""
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    # Not by raising SIGINT: a shell makes background commands of a script ignore that signal.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    finally:
        # A last garbage collection took a fifth of the time of a short command. Torch's libraries
        # report objects that are left over, and commands that load them take longer anyway.
        if "torch" not in sys.modules:
            gc.freeze()


@app.callback()
def for_every_command(
    debug: Annotated[
        bool, typer.Option("--debug", help="Write logs and the traceback of an error to stderr.")
    ] = False,
) -> None:
    """Apply the options that are given before the command."""
    if debug:
        log_everything()
