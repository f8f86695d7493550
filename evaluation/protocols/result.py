"""What a protocol measured, on disk and in tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from typing_extensions import Self

from kn_attrib.errors import ConfigError, StoreError
from kn_attrib.evaluation.protocols.figures import FIGURES
from kn_attrib.evaluation.protocols.rankings import CHANCE
from kn_attrib.evaluation.records.result import Result
from kn_attrib.evaluation.records.style import Panels, canvas_for
from kn_attrib.evaluation.statistics.significance import Difference


@dataclass(frozen=True)
class ProtocolResult(Result):
    """What a protocol measured.

    Attributes
    ----------
    rows : one row per number: ``fact, relation, method``, further columns that say of what, ``metric, value``.
    facts : one row per fact given: used or why not, and what was done to it.
    neurons : one row per neuron injected or dropped.
    manifest : protocol, model, settings, methods with their cost, versions, seed.
    """

    rows: pd.DataFrame
    facts: pd.DataFrame
    neurons: pd.DataFrame
    manifest: dict[str, Any]
    frames: ClassVar[tuple[str, ...]] = ("rows", "facts", "neurons")
    what: ClassVar[str] = "run of a protocol"

    def __repr__(self) -> str:
        name, model = self.manifest["protocol"], self.manifest["model"]["name"]
        return f"ProtocolResult({name} on {model}: {len(self.methods)} methods, {len(self.rows)} rows)"

    def against(self, reference: str = CHANCE, **where: object) -> dict[str, Difference]:
        """Paired difference of every other method to the reference, in one cell.

        Raises
        ------
        ConfigError : the reference was not run, or the values do not name one cell.
        """
        return super().against(reference, **where)

    def table(self, column: str, percent: bool = True, **where: object) -> pd.DataFrame:
        """Methods × the values of a column, as `text_table`."""
        return self.text_table(column, percent, **where)

    def plot(self, axes: Any = None) -> Panels:
        """Each method's recall (INJ) or change of accuracy (DEL) with 95 % intervals, a panel for each ratio.

        Parameters
        ----------
        axes : Matplotlib ``Axes`` to draw on, one for each ratio that there are rows of; default those of a new figure.

        Returns
        -------
        The ``Axes``, in an array.

        Raises
        ------
        ConfigError : no fact was injected, or there is another number of axes.
        """
        if self.rows.empty:
            raise ConfigError("no fact was injected, so there is nothing to draw; try more steps or a higher ratio.")
        return FIGURES[self.manifest["protocol"]](self, canvas_for(axes))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        StoreError : the folder does not hold a saved run of a protocol.
        """
        found = super().load(folder)
        if "protocol" not in found.manifest:
            raise StoreError(f"{folder} holds no run of a protocol; expected what ProtocolResult.save wrote.")
        return found
