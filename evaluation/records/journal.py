"""What a run has finished so far: on disk where a folder is given, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import save_file
from torch import Tensor

from kn_attrib.errors import StoreError
from kn_attrib.evaluation.records.lock import leave, take
from kn_attrib.store import atomic_path, read_parquet, read_record, read_tensors, write_json, write_parquet

LOG = logging.getLogger(__name__)
FOLDER = "unfinished"
"""Name of the journal's folder within the folder of a run."""


def digest_of(identity: Mapping[str, Any]) -> str:
    """What is equal for equal identities, in few characters."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One finished unit of work: tensors, a table, and anything that JSON holds."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Journal:
    """Finished units of work by name, each written as a whole or not at all.

    Parameters
    ----------
    folder : of the run, or None to keep everything in memory.
    identity : digest of what the results depend on, once the journal is open.
    """

    folder: Path | None = None
    identity: str = ""
    _known: dict[str, Entry] = field(default_factory=dict)

    @property
    def place(self) -> Path | None:
        """Where the units are."""
        return None if self.folder is None else self.folder / FOLDER

    @property
    def started(self) -> bool:
        """The folder holds an unfinished run."""
        return self.place is not None and (self.place / "run.json").is_file()

    def open(self, identity: Mapping[str, Any]) -> bool:
        """Start a journal, or go on with one of the same run; whether it goes on.

        Parameters
        ----------
        identity : what the results depend on (model, facts, settings, methods), as JSON holds it.

        Raises
        ------
        StoreError : the folder holds an unfinished run with another identity, or another process writes there now.
        """
        self.identity = digest_of(identity)
        if self.place is None:
            return False
        given = json.loads(json.dumps(identity))
        take(self.place)
        if not self.started:
            write_json(self.place / "run.json", given)
            return False
        found = read_record(self.place / "run.json")
        if found != given:
            differ = ", ".join(sorted(k for k in found.keys() | given.keys() if found.get(k) != given.get(k)))
            raise StoreError(
                f"{self.folder} holds an unfinished run with other {differ}; ask for the same to go on with it, choose "
                "another --out folder, or say --overwrite to start anew."
            )
        LOG.info("Going on with the unfinished run in %s. Finished parts: %d.", self.folder, self._written())
        return True

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While active, an error before any unit is finished leaves no journal: what is mended starts anew."""
        try:
            yield
        except Exception:
            if not self._written():
                self.close()
            raise

    def _written(self) -> int:
        """How many units are on disk; each has a record, and so has the run."""
        return 0 if self.place is None else max(0, len(list(self.place.glob("*.json"))) - 1)

    def get(self, name: str, work: Callable[[], Entry]) -> Entry:
        """A finished unit, or the result of doing its work now."""
        if name in self._known:
            return self._known[name]
        if self.place is None:
            self._known[name] = work()
            return self._known[name]
        if not self.done(name):
            self._write(self.place, name, work())
        return self._read(self.place, name)

    def done(self, name: str) -> bool:
        """Whether a unit is finished."""
        return name in self._known or (self.place is not None and (self.place / f"{name}.json").is_file())

    def close(self) -> None:
        """Throw the units away: the run's results are saved."""
        self._known.clear()
        if self.place is not None:
            leave(self.place)
            shutil.rmtree(self.place, ignore_errors=True)

    def _write(self, place: Path, name: str, entry: Entry) -> None:
        if entry.tensors:
            with atomic_path(place / f"{name}.safetensors") as file:
                save_file({key: tensor.contiguous() for key, tensor in entry.tensors.items()}, file)
        if not entry.frame.empty:
            write_parquet(place / f"{name}.parquet", entry.frame)
        # Last: a unit is finished when its record is there.
        write_json(place / f"{name}.json", entry.record)

    def _read(self, place: Path, name: str) -> Entry:
        tensors, table = place / f"{name}.safetensors", place / f"{name}.parquet"
        try:
            return Entry(
                read_tensors(tensors)[0] if tensors.is_file() else {},
                read_parquet(table) if table.is_file() else pd.DataFrame(),
                read_record(place / f"{name}.json"),
            )
        except StoreError as error:
            raise StoreError(
                f"{self.folder} holds an unfinished run that is damaged: {error} Delete {place / name}.json and the "
                "same command makes that part again, or say --overwrite to start anew."
            ) from error
