"""The command line: ``kn-attrib compare | report | benchmark | plants | protocol | trace | score | methods | …``."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from typing import Annotated, Any

import typer

from kn_attrib.cli import (
    benchmark,
    compare,
    doctor,
    facts,
    methods,
    models,
    plants,
    prompts,
    protocol,
    read,
    report,
    score,
    trace,
)
from kn_attrib.cli.modes import with_modes
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
    app.command(module.NAME)(with_modes(module.command))

app.add_typer(protocol.app, name=protocol.NAME)
read.add(app)
prompts.add(app)
trace.add(app)


UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for options that are not there, or not so: the class has no public name of its own."""


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
        sys.exit(_status())


def _status() -> int:
    """Run the command that is asked for; returns the exit status."""
    try:
        # Without its own ways of showing errors; what a command ends with by typer.Exit is what comes back.
        return app(prog_name="kn-attrib", standalone_mode=False) or 0
    except KnAttribError as error:
        return _failed(str(error))
    except UsageError as error:
        return _misused(error)
    except typer.Abort:
        typer.echo("Aborted.", err=True)
        return 1


def _misused(error: Any) -> int:
    """What typer says is wrong, in one line; help where a group was asked for without a command."""
    if error.ctx is not None and error.message == error.ctx.get_help():
        typer.echo(error.message, err=True)
        return 2
    hint = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
    return _failed(" ".join(error.format_message().split()).rstrip(".") + f"{hint}.")


def _failed(what: str) -> int:
    typer.echo(f"kn-attrib: error: {what}", err=True)
    return 2
