"""The command line: ``kn-attrib compare | report | benchmark | plants | protocol | trace | score | methods | …``."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from typing import Annotated

import typer

from kn_attrib.cli import benchmark, compare, doctor, facts, methods, models, plants, protocol, report, score, trace
from kn_attrib.errors import KnAttribError
from kn_attrib.models.allocator import keep_freed_memory
from kn_attrib.store import versions

app = typer.Typer(
    name="kn-attrib",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo("\n".join(f"{package} {number}" for package, number in versions().items()))
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Versions of kn-attrib and of what it uses.", callback=_say_version, is_eager=True),
]


@app.callback()
def options(version: Version = False) -> None:
    """Find the feed-forward neurons that carry a fact in a language model, and judge how well each method does it."""


for module in (compare, report, benchmark, plants, score, methods, models, facts, doctor):
    app.command(module.NAME)(module.command)

app.add_typer(protocol.app, name=protocol.NAME)
trace.add(app)


def _stop_in_order() -> None:
    """SIGTERM ends a command as Ctrl-C does: temporary files are removed, and what was finished is kept."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)


def main() -> None:
    """Run the command line; errors that a user can mend are one line on stderr and exit status 2."""
    # Checkpoint loading prints bars of its own, which say nothing about this program's progress.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    _stop_in_order()
    keep_freed_memory()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        # Without the file, line number and source that Python would add.
        warnings.showwarning = lambda message, *_: typer.echo(f"kn-attrib: warning: {message}", err=True)
        try:
            app()
        except KnAttribError as error:
            typer.echo(f"kn-attrib: error: {error}", err=True)
            sys.exit(2)
