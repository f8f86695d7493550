"""The result of a trace: its rows, and the tables, answer, figures and report made from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from kn_attrib.display import html_table
from kn_attrib.errors import ConfigError
from kn_attrib.evaluation.records.pages import save_figures, write_page
from kn_attrib.evaluation.records.style import Panels, canvas_for
from kn_attrib.evaluation.report.answer import Answer
from kn_attrib.evaluation.tracing.answer import answer_of
from kn_attrib.evaluation.tracing.figures import effects_by_role, heat_map, kinds_panels, trace_figures
from kn_attrib.evaluation.tracing.tables import peaks, tables_on_page
from kn_attrib.evaluation.tracing.trace_rows import TraceRows


@dataclass(frozen=True)
class Trace(TraceRows):
    """Causal traces of some facts: rows, cells and manifest (see `TraceRows`), and what is made from them."""

    def __repr__(self) -> str:
        name = self.manifest["model"]["name"]
        return f"Trace({name}: {len(self.traced)} facts, {len(self.cells)} cells, {', '.join(self.kinds) or 'nothing'})"

    def _repr_html_(self) -> str:
        """The highest average effects, for notebooks."""
        if not self.traced:
            return html_table(repr(self), [])
        table = peaks(self)
        rows = [(name, *cells) for name, cells in zip(table.index, table.to_numpy().tolist(), strict=True)]
        answer = self.answer()
        caption = f"{self!r}. Highest average indirect effect and its layer"
        return html_table(caption, rows, ["restored", *table.columns], [answer.short] if answer else [])

    def answer(self) -> Answer | None:
        """Does tracing's peak predict which neurons matter? None where feed-forward outputs were not restored."""
        return answer_of(self) if self.traced else None

    def plot(self, fact: str | None = None, kind: str | None = None, ax: Axes | None = None) -> Axes | Panels:
        """Heat maps of one fact (tokens × layers), or average indirect effects by role.

        Parameters
        ----------
        fact : id of a traced fact; without it, averages.
        kind : one kind of state; without it, a panel for each.
        ax : Matplotlib ``Axes`` to draw one kind on; default those of a new figure.

        Returns
        -------
        The ``Axes`` of one kind; of all kinds, in an array.

        Raises
        ------
        ConfigError : nothing was traced, the fact or kind was not, or ``ax`` is given without a kind.
        """
        if not self.traced:
            raise ConfigError("nothing was traced, so there is nothing to plot; `prompts` says why.")
        if kind is None:
            if ax is not None:
                raise ConfigError(f"ax is one panel; name its kind, one of {', '.join(self.kinds)}.")
            return kinds_panels(self, fact, canvas_for())
        with canvas_for(ax).panel(5.5, 3.4) as axes:
            if fact is None:
                effects_by_role(self, kind, axes)
                axes.legend(frameon=False)
            else:
                heat_map(self, fact, kind, axes)
        return axes

    def report(self, folder: str | Path) -> Path:
        """Write the figures (``figures/``) and the page (``report.html``); returns the page's path."""
        folder = Path(folder)
        figures = trace_figures(self)
        save_figures({name: each.figure for name, each in figures.items()}, folder / "figures")
        title = f"Causal tracing of {self.manifest['model']['name']}"
        return write_page(folder / "report.html", title, tables_on_page(self), figures, self.manifest, self.answer())
