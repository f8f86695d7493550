"""The folder of a run: whether it may be written to, and what it holds of an unfinished one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kn_attrib.errors import ConfigError, StoreError
from kn_attrib.evaluation.records.journal import FOLDER, Journal, digest_of
from kn_attrib.evaluation.records.lock import LOCK, check_free
from kn_attrib.store import read_record, reason_of, shown

MANIFESTS = ("manifest.json", "grid.json")
"""Files that a finished run has."""


def check_folder(
    folder: Path, overwrite: bool, identity: Callable[[], Mapping[str, Any]] | None = None, finished: bool = False
) -> Path:
    """The folder, if a run may be written there: it is empty, holds an unfinished run, or is to be written over.

    Parameters
    ----------
    identity : of the run that is to be written, if there is one: asked for where the folder holds a finished run.
    finished : let a finished run pass, to be told later, when it is known whether it is the same.

    Raises
    ------
    StoreError : it exists and holds something else.
    """
    try:
        if folder.is_file():
            raise StoreError(f"{folder} is a file; expected a folder to write to.")
        journal = Journal(folder)
        check_free(folder / FOLDER)
        if not overwrite and not journal.started and _holds_something(folder):
            done = any((folder / name).exists() for name in MANIFESTS)
            if done and finished:
                return folder
            if identity is not None and _is_of(folder, identity):
                raise StoreError(f"this run is finished: {_results(folder)}; --overwrite starts it anew.")
            what = "another run" if done else "other files"
            raise StoreError(f"{folder} exists and holds {what}; choose another --out folder, or say --overwrite.")
    except StoreError:
        raise
    except (OSError, ValueError) as error:  # a name that is too long or no name, a folder that may not be entered
        raise StoreError(
            f"cannot write to {shown(folder)}: {reason_of(error)}; choose another --out folder."
        ) from error
    return folder


def _is_of(folder: Path, identity: Callable[[], Mapping[str, Any]]) -> bool:
    """Whether the finished run in a folder is the one of an identity."""
    try:
        found = read_record(folder / MANIFESTS[0]).get("identity")
    except StoreError:
        return False
    return found is not None and found == digest_of(identity())


def _results(folder: Path) -> str:
    report = folder / "report.html"
    return f"see {report}" if report.is_file() else f"its results are in {folder}"


def _holds_something(folder: Path) -> bool:
    """Anything but a journal that was stopped before it began."""
    begun = folder / FOLDER
    mine = begun.is_dir() and all(each.name == LOCK or each.name.startswith(".") for each in begun.iterdir())
    return folder.is_dir() and any(each.name != FOLDER or not mine for each in folder.iterdir())


def open_folder(
    folder: str | Path | None, overwrite: bool = False, identity: Callable[[], Mapping[str, Any]] | None = None
) -> Journal:
    """The journal of a run that may be written to a folder; None keeps everything in memory.

    Parameters
    ----------
    overwrite : start anew, whatever the folder holds.
    identity : of the run; where the folder holds it already, finished, the error says so.

    Raises
    ------
    ConfigError : what shall be written over is no folder.
    StoreError : the folder holds something else (unless ``overwrite``).
    """
    if folder is None:
        if overwrite:
            raise ConfigError("overwrite is True, and there is no folder to write over; give folder=, or leave it out.")
        return Journal()
    place = check_folder(Path(folder), overwrite, identity)
    journal = Journal(place)
    if overwrite:
        journal.close()
        # A folder with a manifest would pass for a finished run.
        try:
            (place / "manifest.json").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write over {place / 'manifest.json'}: {reason_of(error)}.") from error
    return journal
