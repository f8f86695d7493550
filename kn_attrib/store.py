"""Files on disk: written to a temporary name, then renamed, so that nothing is ever half-written."""

from __future__ import annotations

import json
import logging
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from kn_attrib.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

LOG = logging.getLogger(__name__)
LONGEST_SHOWN = 300
RECORDED_PACKAGES = ("kn_attrib", "torch", "captum", "transformers", "scikit-learn", "numpy", "scipy", "pandas")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure.

    Raises
    ------
    StoreError : the disk is full, read-only, or the folder cannot be made.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        # mkstemp makes private files; what we publish gets the permissions any new file would.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield temporary
        temporary.replace(path)
        LOG.debug("wrote %s", path)
    except (OSError, SafetensorError) as error:  # a full disk, as safetensors tells of it
        raise StoreError(
            f"cannot write {path}: {reason_of(error)}. Nothing was left half-written; free space or choose another "
            "--out folder."
        ) from error
    except ValueError as error:
        if temporary is not None:  # of what was to be written, not of its path
            raise
        raise StoreError(f"cannot write {str(path)!r}: {error}; choose another --out folder.") from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # the disk went away: what went wrong is said already
                temporary.unlink(missing_ok=True)


def reason_of(error: Exception) -> str:
    """Why a file cannot be read or written, in words."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def check_writable(folder: Path) -> None:
    """Make the folder and try to write there, so that a long run does not fail only at its end.

    Raises
    ------
    StoreError : the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except (OSError, ValueError) as error:  # ValueError: a path with NUL or half a surrogate pair
        raise StoreError(
            f"cannot write to {shown(folder)}: {reason_of(error)}; choose another --out folder."
        ) from error


def check_new_file(path: Path, overwrite: bool) -> None:
    """Whether a file may be written, so that long work does not fail only at its end.

    Raises
    ------
    StoreError : it exists (unless ``overwrite``), is a folder, or its folder cannot be made or written to.
    """
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise StoreError(f"cannot write {shown(path)}: {reason_of(error)}; choose another --out file.") from error
    if is_folder:
        raise StoreError(f"{path} is a folder; expected a file to write to, such as {path / 'scores.safetensors'}.")
    if exists and not overwrite:
        raise StoreError(f"{path} exists; choose another --out file, or say --overwrite.")
    check_writable(path.parent)


def shown(path: Path) -> str:
    """A path for a message: as it is where it can be printed, else quoted, and never longer than a line or two."""
    text = str(path)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def parsed_json(text: str) -> Any:
    """What a JSON text holds.

    Raises
    ------
    ValueError : it is no JSON, nested too deep, or holds an integer of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    StoreError : the file is missing or not JSON.
    """
    try:
        return parsed_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {shown(path)}: {error}.") from error


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    StoreError : the file is missing or holds something else.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise StoreError(f"cannot read {path}: it holds {type(found).__name__}; expected a JSON object.")
    return found


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a data frame.

    Raises
    ------
    StoreError : the file is missing or damaged.
    """
    import pandas as pd

    try:
        if path.is_dir():  # which pandas would take for a data set in parts
            raise ValueError("it is a folder; expected a file")
        if not path.exists():
            raise ValueError("No such file")
        return pd.read_parquet(path)
    # Whatever is wrong with a file, pandas, pyarrow and the codecs each say so with exceptions of their own.
    except Exception as error:
        raise StoreError(f"cannot read {shown(path)}: {reason_of(error)}.") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors by name, and the texts that are kept beside them.

    Raises
    ------
    StoreError : the file is missing or damaged.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # a file handle, not a dict
            return found, dict(file.metadata() or {})
    # As above: safetensors, and torch for kinds of numbers that it does not have.
    except Exception as error:
        raise StoreError(f"cannot read {shown(path)}: {reason_of(error)}.") from error


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a data frame as Parquet atomically."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def write_run(folder: Path, frames: Mapping[str, pd.DataFrame], manifest: Any) -> Path:
    """Write tables (Parquet) and ``manifest.json``; returns the folder."""
    for name, frame in frames.items():
        write_parquet(folder / f"{name}.parquet", frame)
    # Last, so that a folder with a manifest is a whole run.
    write_json(folder / "manifest.json", manifest)
    return folder


def read_run(folder: Path, names: Sequence[str], what: str) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Tables and manifest that `write_run` wrote.

    Raises
    ------
    StoreError : the folder does not hold them; ``what`` says what was expected there.
    """
    try:
        saved = (folder / "manifest.json").is_file()
    except OSError as error:
        raise StoreError(f"cannot read the {what} in {shown(folder)}: {reason_of(error)}.") from error
    if not saved:
        raise StoreError(
            f"{shown(folder)} holds no saved {what}; expected manifest.json and {', '.join(names)}.parquet."
        )
    try:
        frames = {name: read_parquet(folder / f"{name}.parquet") for name in names}
        return frames, read_record(folder / "manifest.json")
    except StoreError as error:
        raise StoreError(f"the {what} in {folder} is damaged: {error} Run the same command to make it anew.") from error


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a number may depend on."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
