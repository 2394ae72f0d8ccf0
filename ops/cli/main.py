"""The command ``bertstream``: reads options, calls what does the work, prints.

Commands import late what is heavy: ``--help`` needs neither torch nor ray nor a Kafka client.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import time
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from ops.cli.session import STATE_DIR, JsonOption, StateOption
from ops.cli.terminal import (
    EXIT_USAGE,
    Steps,
    configuration,
    err,
    fail,
    json_line,
    log_everything,
    out,
    told_plainly,
)
from ops.config.state_dir import DEFAULT_FILE, state_dir_of

if TYPE_CHECKING:
    from ops.config.settings import PlatformConfig

WATCH_S = 5.0
# Commands of the control API: the module and what it is called there.
LATE = {
    "models": ("models", "app"),
    "policy": ("policy", "app"),
    "release": ("release", "app"),
    "rollback": ("release", "rollback"),
    "people": ("people", "people_app"),
    "team": ("people", "team_app"),
    "grant": ("rights", "grant_app"),
    "token": ("rights", "token_app"),
    "ledger": ("ledger", "app"),
    "cost": ("cost", "cost"),
    "alerts": ("cost", "alerts"),
    "health": ("health", "health"),
}


class _LateCommands(TyperGroup):
    """Imports and builds a command of ``LATE`` when it is asked for, and no other."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(dict.fromkeys((*super().list_commands(ctx), *LATE)))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in LATE and cmd_name not in self.commands:
            self.add_command(_built(cmd_name), cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            for name in LATE:  # the nearest is suggested
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


def _built(name: str) -> Any:
    module, attribute = LATE[name]
    found = getattr(import_module(f"ops.commands.{module}"), attribute)
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False)
    alone.command(name)(found)
    return get_command(alone)


app = typer.Typer(
    cls=_LateCommands,
    help="Text events on Kafka through BERT replicas and back to Kafka, exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
broker_app = typer.Typer(help="The embedded Kafka alone.", no_args_is_help=True)
config_app = typer.Typer(help="The configuration file.", no_args_is_help=True)
train_app = typer.Typer(help="Fine-tune a model directory.", no_args_is_help=True)
app.add_typer(broker_app, name="broker")
app.add_typer(config_app, name="config")
app.add_typer(train_app, name="train")

GoldenOption = Annotated[
    Path | None, typer.Option(help="Texts to know it by: one a line, or JSON objects.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; bertstream.yaml by default.")
]
Format = Literal["json", "text"]


def main() -> None:
    """Run the command; SIGTERM counts as Ctrl-C."""
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    # Not by raising SIGINT: a script's shell has what it starts in the background ignore that.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    finally:
        # The process ends: a last look for garbage took a fifth of a short command. Torch's
        # libraries tell of all that is left behind, and with them a command takes longer anyway.
        if "torch" not in sys.modules:
            gc.freeze()


@app.callback()
def for_every_command(
    debug: Annotated[
        bool, typer.Option("--debug", help="Logs on stderr, and where in the code an error arose.")
    ] = False,
) -> None:
    """Heed the options that stand before the command."""
    if debug:
        log_everything()


@app.command()
def up(
    config: ConfigOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Leave it running and return.")
    ] = False,
) -> None:
    """Bring up Kafka, Ray, models and pipelines; what runs already is left alone."""
    from ops.platform import bring_up

    with told_plainly():
        settings = configuration(config)
        with Steps() as step:
            bring_up.up(settings, step)
        if detach:
            _show_addresses(settings)
            out.print("Running. `bertstream status` shows it, `bertstream down` ends it.")
            return
        try:
            _show_addresses(settings)
            out.print("Running. Ctrl-C ends it.")
            _watch(settings)
        except KeyboardInterrupt:
            err.print()
        finally:
            with Steps() as step:
                bring_up.down(settings.state_dir, step)


def _show_addresses(settings: PlatformConfig) -> None:
    from ops.platform.status import status as read_status

    now = read_status(settings)
    out.print(f"Kafka          {now.bootstrap_servers}")
    out.print(f"Ray dashboard  {now.dashboard}")
    token = now.token_file or "that of the cluster that was joined"
    out.print(f"  its token    {token}", soft_wrap=True)


def _watch(settings: PlatformConfig) -> NoReturn:
    """Show the pipelines, again and again."""
    from ops.cli.status_tables import status_table
    from ops.platform.status import status as read_status

    while True:
        time.sleep(WATCH_S)
        out.print(status_table(read_status(settings)))


@app.command()
def down(state_dir: StateOption = STATE_DIR) -> None:
    """Let the pipelines finish and end everything that `up` started."""
    from ops.platform import bring_up

    with told_plainly():
        place = state_dir_of(state_dir)
        with Steps() as step:
            ended = bring_up.down(place, step)
        if not ended:
            out.print(f"Nothing runs here ({place}).")


@app.command()
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show apps, lag, rate and latency; exit code 1 when something does not run."""
    from ops.cli.status_tables import status_table
    from ops.platform.status import status as read_status

    with told_plainly():
        now = read_status(configuration(config))
        if as_json:
            json_line(now.model_dump_json())
        else:
            out.print(status_table(now))
        if not now.healthy:
            raise typer.Exit(1)


@app.command()
def produce(
    topic: str,
    file: Annotated[str, typer.Argument(help="Lines to send; - reads stdin.")] = "-",
    key_field: Annotated[
        str | None, typer.Option(help="JSON field whose value becomes the key.")
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="text: any line, as it stands; json: objects only. "
            "json with --key-field, else text.",
        ),
    ] = None,
    rate: Annotated[float, typer.Option(help="Records per second; 0 for no limit.", min=0)] = 0,
    config: ConfigOption = None,
) -> None:
    """Send each line of a file as one record: JSON lines or plain text."""
    from ops.cli.records import produce_lines

    with told_plainly():
        if key_field is not None and form == "text":
            fail("--key-field names a field of JSON lines: leave out --format text", EXIT_USAGE)
        kafka = _kafka(config)
        if file != "-" and not Path(file).is_file():
            fail(f"there is no file {file}", EXIT_USAGE)
        lines = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115
        with lines:
            count = produce_lines(
                kafka,
                topic,
                lines,
                as_json=form == "json" or key_field is not None,
                key_field=key_field,
                rate=rate,
            )
        err.print(f"{count} records sent to {topic}")


@app.command()
def consume(
    topic: str,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start with the oldest record.")
    ] = False,
    max_records: Annotated[
        int, typer.Option("--max", help="End after so many; 0 for no limit.", min=0)
    ] = 0,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="End after so many quiet seconds; 0 never.", min=0)
    ] = 0,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show committed records as they come."""
    from ops.cli.records import as_json_line, as_text
    from stream.clients import read_topic

    # Closed whatever happens: the client's thread would keep the command from ending.
    with (
        told_plainly(),
        closing(
            read_topic(
                _kafka(config), topic, from_beginning=from_beginning, timeout_s=timeout_s or None
            )
        ) as records,
    ):
        for count, record in enumerate(records, start=1):
            if as_json:
                json_line(as_json_line(record))
            else:
                out.print(as_text(record), soft_wrap=True, markup=False)
            if count == max_records:
                break


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A model directory, or a served name[@version].")],
    texts: Annotated[list[str] | None, typer.Argument(help="stdin's lines if none.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer texts without Kafka."""
    from ops.cli.prediction import answer_line, answer_text, predict_texts

    with told_plainly():
        wanted = texts or [line.removesuffix("\n") for line in sys.stdin]
        if not wanted:
            fail("there is no text: give some as arguments or on stdin", EXIT_USAGE)
        answers = predict_texts(model, wanted, config)
        for index, (text, answer) in enumerate(zip(wanted, answers, strict=True)):
            if as_json:
                json_line(answer_line(index, text, answer))
            else:
                out.print(answer_text(text, answer), markup=False, soft_wrap=True)


@app.command("import")
def import_(
    out_dir: Annotated[Path, typer.Option("--out", help="The model directory to write.")],
    task: Annotated[str, typer.Option(help="text-classification or feature-extraction.")],
    source: Annotated[
        str | None, typer.Argument(help="Directory or hub name; the packaged MiniLM if none.")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls, max, last-token, ...; the model's own if none.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Names of the labels, with commas, in the model's order.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="In tokens.", min=3)] = None,
    golden: GoldenOption = None,
) -> None:
    """Make a sealed model directory of a model from elsewhere."""
    from ops.cli.prediction import import_directory

    with told_plainly():
        artifact = import_directory(source, out_dir, task, pooling, labels, max_length, golden)
        out.print(
            f"{artifact.path}: {artifact.card.task}, digest {artifact.digest}", soft_wrap=True
        )


@train_app.command("text-classification")
def train_text_classification(
    data: Annotated[Path, typer.Option(help="JSON lines, CSV or TSV: texts and labels.")],
    out_dir: Annotated[Path, typer.Option("--out", help="The model directory to write.")],
    base: Annotated[
        str | None, typer.Option(help="Directory or hub name; the packaged MiniLM if none.")
    ] = None,
    freeze: Annotated[
        str, typer.Option(help="encoder: train the head alone (seconds); none: everything.")
    ] = "encoder",
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    text_field: str = "text",
    label_field: str | None = None,
    multi_label: bool = False,
    max_length: Annotated[int | None, typer.Option(min=3)] = None,
    columns: Annotated[
        str | None, typer.Option(help="Of a file without a header line: text,label")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Between columns; found out among , ; | and tab if none.")
    ] = None,
    val_share: Annotated[float, typer.Option(help="Of the texts: decides when to stop.")] = 0.1,
    test_share: Annotated[float, typer.Option(help="Of the texts: measured on.")] = 0.2,
    batch_tokens: Annotated[int, typer.Option(help="Of one batch, at most.")] = 2048,
    head_lr: Annotated[float, typer.Option(help="Highest learning rate of the head.")] = 1e-3,
    encoder_lr: Annotated[float, typer.Option(help="The same of the encoder.")] = 5e-5,
    golden: GoldenOption = None,
    seed: int = 0,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a text classifier and write its model directory."""
    from ops.cli.training import train_with_progress

    with told_plainly():
        artifact = train_with_progress(
            {
                "data": data,
                "out": out_dir,
                "base": base,
                "freeze": freeze,
                "epochs": epochs,
                "text_field": text_field,
                "label_field": label_field,
                "multi_label": multi_label,
                "max_length": max_length,
                "columns": tuple(columns.split(",")) if columns else None,
                "separator": separator,
                "val_share": val_share,
                "test_share": test_share,
                "batch_tokens": batch_tokens,
                "head_lr": head_lr,
                "encoder_lr": encoder_lr,
                "golden": golden,
                "seed": seed,
            }
        )
        if as_json:
            json_line(artifact.card.model_dump_json())
            return
        metrics = ", ".join(f"{m.name} {m.value:.3f}" for m in artifact.card.metrics)
        out.print(f"{artifact.path}: {metrics}", soft_wrap=True)


@broker_app.command("start")
def broker_start(state_dir: StateOption = STATE_DIR) -> None:
    """Start the embedded Kafka and leave it running."""
    from ops.platform.installation import embedded_broker

    with told_plainly():
        embedded = embedded_broker(state_dir_of(state_dir))
        Steps()("Kafka: starting")
        out.print(embedded.start())


@broker_app.command("stop")
def broker_stop(state_dir: StateOption = STATE_DIR) -> None:
    """Stop the embedded Kafka; its data stays."""
    from ops.platform.installation import embedded_broker

    with told_plainly():
        place = state_dir_of(state_dir)
        embedded = embedded_broker(place)
        if embedded.is_running():
            embedded.stop()
        else:
            out.print(f"No broker runs here ({place}).")


@broker_app.command("status")
def broker_status(state_dir: StateOption = STATE_DIR, as_json: JsonOption = False) -> None:
    """Show its address, process and memory; exit code 1 when it does not run."""
    from ops.cli.status_tables import broker_lines
    from ops.embedded_kafka import status as status_of_broker
    from ops.platform.installation import embedded_broker

    with told_plainly():
        now = status_of_broker.broker_status(embedded_broker(state_dir_of(state_dir)))
        if as_json:
            json_line(now.model_dump_json())
        else:
            out.print(broker_lines(now), markup=False, soft_wrap=True)
        if not now.running:
            raise typer.Exit(1)


@config_app.command("check")
def config_check(file: Annotated[Path, typer.Argument()] = Path("bertstream.yaml")) -> None:
    """Name every mistake in the file with its place; exit code 2 when there is one."""
    from ops.config.file import check

    problems = check(file)
    for problem in problems:
        out.print(problem.told_of(file), markup=False, soft_wrap=True)
    if problems:
        raise typer.Exit(EXIT_USAGE)
    out.print(f"{file}: fine")


@app.command("demo-release")
def demo_release() -> None:
    """Show releases: one goes live, three are caught and taken back. Some minutes."""
    from ops.demo.releases import run

    with told_plainly():
        raise typer.Exit(run())


@app.command()
def demo() -> None:
    """Show the whole: train, serve, stream 2,000 events, count, stop. About a minute."""
    from ops.demo.stream import run

    with told_plainly():
        raise typer.Exit(run())


def _kafka(config: Path | None) -> Any:
    """The Kafka settings with the address in use: of a running platform, or as configured."""
    from ops.config.settings import EMBEDDED, PlatformConfig
    from ops.errors import NotRunning
    from ops.platform.installation import State, embedded_broker

    named = config is not None or DEFAULT_FILE.exists()
    settings = configuration(config) if named else PlatformConfig()
    if settings.kafka.bootstrap_servers != EMBEDDED:
        return settings.kafka
    embedded = embedded_broker(settings.state_dir)
    if not embedded.is_running():
        raise NotRunning("the embedded Kafka does not run; `bertstream up` starts it")
    state = State(instance="", bootstrap_servers=embedded.bootstrap_servers)
    return state.kafka(settings.kafka)
