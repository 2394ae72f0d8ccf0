"""Commands that show the product at work, with what they start and end themselves."""

from __future__ import annotations

import typer

from ops.cli.terminal import errors_in_words


def demo_release() -> None:
    """Show releases: one goes live, three are caught and taken back. Some minutes."""
    from ops.demo.releases import run

    with errors_in_words():
        raise typer.Exit(run())


def demo() -> None:
    """Show the whole: train, serve, stream 2,000 events, count, stop. About a minute."""
    from ops.demo.stream import run

    with errors_in_words():
        raise typer.Exit(run())
