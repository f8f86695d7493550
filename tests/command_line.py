"""Running the command line in this process."""

from __future__ import annotations

import re

from typer.testing import CliRunner, Result

from kn_attrib.cli import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def output(*arguments: object) -> str:
    """What a command that must succeed prints, with runs of spaces made one."""
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return re.sub(r" +", " ", result.output)


def raise_from(result: Result) -> None:
    """Raise what a command ended with."""
    assert result.exception is not None, result.output
    raise result.exception
