"""Activations of facts' neurons by kind of text: the answer, figures and page made from the rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kn_attrib.display import html_table
from kn_attrib.errors import ConfigError, unknown
from kn_attrib.evaluation.firing.activations import STANDARDISED
from kn_attrib.evaluation.firing.answer import answer_of
from kn_attrib.evaluation.firing.figures import (
    CONTRASTS_CAPTION,
    GROUPS_CAPTION,
    contrasts_figure,
    groups_figure,
)
from kn_attrib.evaluation.firing.groups import DESIGNS
from kn_attrib.evaluation.firing.rows import FiringRows
from kn_attrib.evaluation.firing.tables import activations_table, tables_on_page
from kn_attrib.evaluation.records.pages import CaptionedFigure, save_figures, write_page
from kn_attrib.evaluation.records.style import OFF_SCREEN, Panels, canvas_for, figure_of
from kn_attrib.evaluation.report.answer import Answer

FIGURES = {"groups": (groups_figure, GROUPS_CAPTION), "contrasts": (contrasts_figure, CONTRASTS_CAPTION)}


@dataclass(frozen=True)
class PromptTypes(FiringRows):
    """Activations of facts' neurons by kind of text: rows, texts and manifest (see `FiringRows`), and what is made."""

    def __repr__(self) -> str:
        facts = self.rows.fact.nunique()
        return f"PromptTypes({self.manifest['model']['name']}: {facts} facts, {', '.join(self.methods)})"

    def _repr_html_(self) -> str:
        """Activations by group and the answer, for notebooks."""
        design = next(design for design in reversed(DESIGNS) if design in set(self.rows.design))
        table = activations_table(self, design, STANDARDISED)
        rows = [(name, *cells) for name, cells in zip(table.index, table.to_numpy().tolist(), strict=True)]
        caption = f"{self!r}. Standardised activation, {design} design"
        answer = self.answer()
        return html_table(caption, rows, ["method", *table.columns], [answer.short] if answer else [])

    def answer(self) -> Answer | None:
        """Do a fact's neurons fire for the fact? None where no fact has texts of the unconfounded design."""
        return answer_of(self)

    def plot(self, kind: Literal["groups", "contrasts"] = "groups", axes: Any = None) -> Panels:
        """Standardised activations by group, or contrasts between groups; a panel for each design that has texts.

        Parameters
        ----------
        kind : ``"groups"`` or ``"contrasts"``.
        axes : Matplotlib ``Axes`` to draw on, one for each design; default those of a new figure.

        Returns
        -------
        The ``Axes``, in an array.

        Raises
        ------
        ConfigError : an unknown kind, or another number of axes.
        """
        if kind not in FIGURES:
            raise ConfigError(unknown("kind of figure", kind, FIGURES))
        return FIGURES[kind][0](self, canvas_for(axes))

    def report(self, folder: str | Path) -> Path:
        """Write the figures (``figures/``) and the page (``report.html``); returns the page's path."""
        folder = Path(folder)
        drawn = {
            name: CaptionedFigure(figure_of(draw(self, OFF_SCREEN)), caption)
            for name, (draw, caption) in FIGURES.items()
        }
        save_figures({name: each.figure for name, each in drawn.items()}, folder / "figures")
        title = f"When the neurons of facts fire in {self.manifest['model']['name']}"
        return write_page(folder / "report.html", title, tables_on_page(self), drawn, self.manifest, self.answer())
