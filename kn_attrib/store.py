"""Files on disk: written to a temporary name, then renamed, so that nothing is ever half-written."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from kn_attrib.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

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
    except (OSError, SafetensorError) as error:  # a full disk, as safetensors tells of it
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(
            f"cannot write {path}: {reason}. Nothing was left half-written; free space or choose another --out folder."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}; choose another --out folder.") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    StoreError : the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise StoreError(f"cannot read {path}: {error}.") from error


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


def read_run(folder: Path, names: Sequence[str], what: str) -> tuple[dict[str, pd.DataFrame], Any]:
    """Tables and manifest that `write_run` wrote.

    Raises
    ------
    StoreError : the folder does not hold them; ``what`` says what was expected there.
    """
    import pandas as pd

    if not (folder / "manifest.json").is_file():
        raise StoreError(f"{folder} holds no saved {what}; expected manifest.json and {', '.join(names)}.parquet.")
    try:
        frames = {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read the {what} in {folder}: {error}.") from error
    return frames, read_json(folder / "manifest.json")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a number may depend on."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
