"""Whether a run may be written to a folder."""

from __future__ import annotations

from pathlib import Path

from kn_attrib.errors import StoreError
from kn_attrib.evaluation.records.journal import Journal


def check_folder(folder: Path, overwrite: bool) -> Path:
    """The folder, if a run may be written there: it is empty, holds an unfinished run, or is to be written over.

    Raises
    ------
    StoreError : it exists and holds something else.
    """
    if folder.is_file():
        raise StoreError(f"{folder} is a file; expected a folder to write to.")
    if not overwrite and not Journal(folder).started and folder.is_dir() and any(folder.iterdir()):
        what = "another run" if (folder / "manifest.json").exists() else "other files"
        raise StoreError(f"{folder} exists and holds {what}; choose another --out folder, or say --overwrite.")
    return folder
