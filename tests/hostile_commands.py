"""What commands say of bad input: shared by the tests in ``hostile/``."""

from __future__ import annotations

import re

from command_line import run
from kn_attrib.errors import KnAttribError


def said_by(*arguments: object) -> str:
    """The one message that a command ends with; anything but an error of the package or of usage is raised."""
    result = run(*arguments)
    error = result.exception
    if isinstance(error, KnAttribError):
        return str(error)
    if not isinstance(error, SystemExit) or error.code != 2:
        raise AssertionError(f"ended with {error!r}: {result.output}") from error
    return result.stderr


def assert_says(found: str, said: str) -> None:
    """A message, with its white space and frames taken out, says something."""
    plain = " ".join(found.replace("│", " ").split())
    assert re.search(said, plain), plain
