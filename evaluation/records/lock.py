"""One process at a time writes to a run's folder."""

from __future__ import annotations

import os
from pathlib import Path

from kn_attrib.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows: there nothing is held, and two writers are not found out
    fcntl = None  # type: ignore[assignment]

LOCK = "writing"
"""Name of the file that a process holds while it writes."""
_HELD: dict[Path, int] = {}
"""Open locks of this process; a run that goes on in the same process finds its own."""


def take(folder: Path) -> None:
    """Hold a folder until `leave`, or until this process ends in any way.

    Raises
    ------
    StoreError : another process holds it.
    """
    where = _real(folder)
    if fcntl is None or (where in _HELD and (where / LOCK).exists()):
        return
    leave(folder)
    try:
        where.mkdir(parents=True, exist_ok=True)
        handle = os.open(where / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # what cannot be written to is found out, and said, by the next write
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise _busy(folder) from error
    except OSError:  # a file system without locks
        os.close(handle)
        return
    _HELD[where] = handle


def leave(folder: Path) -> None:
    """Hold a folder no longer."""
    handle = _HELD.pop(_real(folder), None)
    if handle is not None:
        os.close(handle)


def check_free(folder: Path) -> None:
    """Raise StoreError where another process writes now."""
    where = _real(folder)
    if fcntl is None or where in _HELD or not (where / LOCK).is_file():
        return
    try:
        handle = os.open(where / LOCK, os.O_RDWR)
    except OSError:  # as in `take`
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _busy(folder) from error
    except OSError:
        return
    finally:
        os.close(handle)


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))  # Path.resolve fails on links that go round in circles


def _busy(folder: Path) -> StoreError:
    return StoreError(
        f"another process is writing to {folder.parent}; wait until it has finished, or choose another --out folder."
    )
