"""``--verbose``, ``--quiet`` and ``--json``: options that every command has, and no command names."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from tqdm.contrib.logging import logging_redirect_tqdm

from kn_attrib.cli.screen import one_document
from kn_attrib.errors import ConfigError, UnknownMethodError
from kn_attrib.evaluation.records import journal

Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, show_default=False, help="Tell on stderr what is being done; -vv: in detail."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Results and errors only: no progress, no warnings.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as one JSON document.")]
LIBRARY, TOLD = "kn_attrib", ("kn_attrib.cli", journal.__name__)
"""Loggers of the library, and of what is told in any case: by the program, and that an unfinished run goes on."""
STAMPED = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True)
class Modes:
    """How much a command tells beside its results.

    Parameters
    ----------
    verbose : 0, 1 (what is being done) or 2 (in detail).
    quiet : no progress, no warnings.
    """

    verbose: int = 0
    quiet: bool = False


_MODES: ContextVar[Modes] = ContextVar("modes", default=Modes())  # noqa: B039  # frozen


def modes() -> Modes:
    """Of the command that is running."""
    return _MODES.get()


def progress() -> bool:
    """Whether progress is to be shown."""
    return not modes().quiet


def with_modes(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the three options behind its own."""
    own = inspect.signature(command, eval_str=True).parameters
    added = [
        parameter("verbose", Verbose, 0),
        parameter("quiet", Quiet, False),
        parameter("json", Json, False),
    ]

    def run(verbose: int, quiet: bool, json: bool, **given: Any) -> None:
        if quiet and verbose:
            raise ConfigError("--quiet and --verbose exclude one another; give one of them.")
        if json and given.get("markdown"):
            raise ConfigError("--json and --markdown exclude one another; give one of them.")
        with telling(Modes(verbose, quiet)), one_document() if json else nullcontext():
            try:
                command(**given)
            except UnknownMethodError as error:
                if given.get("plugin", True):  # files are named already, or cannot be
                    raise
                raise UnknownMethodError(f"{error} Methods of your own: --plugin FILE.") from error

    run.__doc__ = command.__doc__
    return signed(run, [*own.values(), *added])


def parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """A parameter of a command that is made rather than written."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def signed(command: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """A command that takes keywords, with the parameters that typer makes options of."""
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


@contextmanager
def telling(asked: Modes) -> Iterator[None]:
    """While active, log records go to stderr as far as they are asked for, and warnings unless ``--quiet``."""
    disabled = logging.root.manager.disable
    token = _MODES.set(asked)
    with warnings.catch_warnings(), _handled(asked.verbose):
        if asked.quiet:
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)  # of other libraries too
        try:
            yield
        finally:
            logging.disable(disabled)
            _MODES.reset(token)


@contextmanager
def _handled(verbose: int) -> Iterator[None]:
    """Records that are told are shown in any case, the library's others with ``--verbose``."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(STAMPED if verbose else None))
    asked = logging.DEBUG if verbose > 1 else logging.INFO
    levels = {LIBRARY: asked if verbose else logging.WARNING, **dict.fromkeys(TOLD, asked)}
    loggers = {name: logging.getLogger(name) for name in levels}
    before = {name: logger.level for name, logger in loggers.items()}
    for name, logger in loggers.items():
        logger.setLevel(levels[name])
    loggers[LIBRARY].addHandler(handler)
    try:
        # Above progress bars rather than into them.
        with logging_redirect_tqdm([loggers[LIBRARY]]):
            yield
    finally:
        loggers[LIBRARY].removeHandler(handler)
        for name, logger in loggers.items():
            logger.setLevel(before[name])
