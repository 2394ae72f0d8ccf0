"""Commands of the demonstrations, which start and stop a platform of their own."""

from __future__ import annotations

import typer

from ops.cli.terminal import errors_in_words


def demo_release() -> None:
    """Show releases: one goes live, three are rolled back. Takes some minutes."""
    from ops.demo.releases import run

    with errors_in_words():
        raise typer.Exit(run())


def demo() -> None:
    """Show the whole: train, serve, stream events, count, stop. Takes under two minutes."""
    from ops.demo.stream import run

    with errors_in_words():
        raise typer.Exit(run())
