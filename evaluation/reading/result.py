"""The result of a reading: its rows, and the tables, figures and page made from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kn_attrib.display import html_table
from kn_attrib.evaluation.reading.agreement import agreement_of_groups
from kn_attrib.evaluation.reading.figures import agreement_figure, reading_figures
from kn_attrib.evaluation.reading.rows import ReadingRows
from kn_attrib.evaluation.reading.tables import agreement_table, reading_tables
from kn_attrib.evaluation.records.pages import save_figures, write_page
from kn_attrib.evaluation.records.style import Panels, canvas_for


@dataclass(frozen=True)
class ReadingResult(ReadingRows):
    """What was read of a model's neurons: rows and manifest (see `ReadingRows`), and what is made of them."""

    def __repr__(self) -> str:
        facts = self.neurons.fact.nunique()
        return f"ReadingResult({self.manifest['model']['name']}: {facts} facts, {len(self.methods)} methods)"

    def _repr_html_(self) -> str:
        """Agreement by layers, own values beside shuffled ones, for notebooks."""
        table = agreement_table(agreement_of_groups(self.agreement), "layers")
        rows = [(name, *cells) for name, cells in zip(table.index, table.to_numpy().tolist(), strict=True)]
        what = "Neurons that write what follows the context that activates them most, in % [95 % interval]"
        return html_table(f"{self!r}. {what}", rows, ["layers", *table.columns])

    def plot(self, axes: Any = None) -> Panels:
        """Agreement by layer, own value vectors beside shuffled ones: for the most likely word, and for the first ten.

        Parameters
        ----------
        axes : two Matplotlib ``Axes`` to draw on; default those of a new figure.

        Returns
        -------
        The ``Axes``, in an array.

        Raises
        ------
        ConfigError : there is another number of axes.
        """
        return agreement_figure(self.agreement, canvas_for(axes))

    def report(self, folder: str | Path) -> Path:
        """Write the figures (``figures/``) and the page (``report.html``); returns the page's path."""
        folder = Path(folder)
        figures = reading_figures(self)
        save_figures({name: each.figure for name, each in figures.items()}, folder / "figures")
        title = f"Neurons of {self.manifest['model']['name']} as memories"
        return write_page(folder / "report.html", title, reading_tables(self), figures, self.manifest)
