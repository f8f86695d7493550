"""The folder of a run: whether it may be written to, and what it holds of an unfinished one."""

from __future__ import annotations

from pathlib import Path

from kn_attrib.errors import StoreError
from kn_attrib.evaluation.records.journal import Journal

MANIFESTS = ("manifest.json", "grid.json")
"""Files that a finished run has."""


def check_folder(folder: Path, overwrite: bool) -> Path:
    """The folder, if a run may be written there: it is empty, holds an unfinished run, or is to be written over.

    Raises
    ------
    StoreError : it exists and holds something else.
    """
    if folder.is_file():
        raise StoreError(f"{folder} is a file; expected a folder to write to.")
    if not overwrite and not Journal(folder).started and folder.is_dir() and any(folder.iterdir()):
        what = "another run" if any((folder / name).exists() for name in MANIFESTS) else "other files"
        raise StoreError(f"{folder} exists and holds {what}; choose another --out folder, or say --overwrite.")
    return folder


def open_folder(folder: str | Path | None, overwrite: bool = False) -> Journal:
    """The journal of a run that may be written to a folder; None keeps everything in memory.

    Parameters
    ----------
    overwrite : start anew, whatever the folder holds.

    Raises
    ------
    StoreError : the folder holds something else (unless ``overwrite``).
    """
    if folder is None:
        return Journal()
    place = check_folder(Path(folder), overwrite)
    journal = Journal(place)
    if overwrite:
        journal.close()
        # A folder with a manifest would pass for a finished run.
        (place / "manifest.json").unlink(missing_ok=True)
    return journal
