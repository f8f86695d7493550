"""Figures of a comparison, drawn with seaborn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from kn_attrib.evaluation.records.style import OFF_SCREEN, Canvas, handles_of
from kn_attrib.evaluation.report.bars import bars
from kn_attrib.evaluation.report.comparison_rows import ComparisonRows
from kn_attrib.evaluation.report.specificity import specificity
from kn_attrib.neurons import NeuronSet


class Draw(Protocol):
    """Draws a figure of one comparison and returns its panel, the first where there are several."""

    def __call__(self, *, canvas: Canvas = OFF_SCREEN) -> Axes:
        """Draw on a canvas."""
        ...


class DrawOf(Protocol):
    """The same of any comparison."""

    def __call__(self, comparison: ComparisonRows, *, canvas: Canvas = OFF_SCREEN) -> Axes:
        """Draw on a canvas."""
        ...


def layers(comparison: ComparisonRows, *, canvas: Canvas = OFF_SCREEN) -> Axes:
    """Share of each method's refined neurons in each layer."""
    refined = comparison.neurons[comparison.neurons.selection == "refined"]
    counts = refined.groupby(["method", "layer"]).size().unstack(fill_value=0)  # noqa: PD010  # no duplicates
    n_layers = comparison.manifest["model"]["layers"]
    counts = counts.reindex(index=comparison.methods, columns=range(n_layers), fill_value=0)
    shares = counts.div(counts.sum(axis=1).replace(0, 1), axis=0)
    with canvas.panel(2.8 + 0.62 * shares.shape[1], 1.3 + 0.36 * len(shares)) as axes:
        _heat_map(axes, shares, annot=shares.shape[1] <= 16, fmt=".0%", cmap="Blues", vmin=0)
        axes.set(title="Where the refined neurons are", xlabel="layer", ylabel="")
    return axes


def _heat_map(axes: Axes, table: pd.DataFrame, **options: Any) -> None:
    """A heat map of numbers up to 1."""
    sns.heatmap(table, vmax=1, ax=axes, cbar=False, linewidths=0.5, **options)
    axes.tick_params(axis="y", rotation=0)  # seaborn turns them where rows are narrow


def _slant(axes: Axes, degrees: int) -> None:
    """Turn the names of columns so that long ones do not run into each other."""
    axes.tick_params(axis="x", rotation=degrees)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")


def budgets(comparison: ComparisonRows, *, canvas: Canvas = OFF_SCREEN) -> Axes:
    """Effect of suppressing the top k neurons, by k, for each method and for random neurons."""
    intervention = comparison.interventions[0]
    cells = comparison.cell(intervention=intervention, group="target")
    cells = cells[cells.selection.str.startswith("k=")].assign(k=lambda f: f.selection.str[2:].astype(int))
    own = cells[cells.neurons == "method"]
    palette = _palette(comparison.methods)
    with canvas.panel(7.5, max(4.2, 1.2 + 0.19 * len(palette))) as axes:
        for method, part in own.groupby("method", sort=False):
            part = part.sort_values("k")
            colour = palette[str(method)]
            axes.plot(part.k, part["mean"], marker="o", markersize=4, label=str(method), color=colour)
            axes.fill_between(part.k, part.low, part.high, color=colour, alpha=0.12, linewidth=0)
        axes.axhline(0, color="0.2", linewidth=0.8)
        axes.set_xticks(sorted(own.k.unique()))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_title(f"Equally many neurons of each method: {intervention.replace('_', ' ')}")
        axes.set(xlabel="neurons (top k)", ylabel="relative change of p(answer)")
        canvas.legend(axes, handles_of([axes]), "outside right center")
    return axes


def _palette(methods: Sequence[str]) -> dict[str, Any]:
    """A colour for each method."""
    # The first has ten colours; more would be its first ones again.
    return dict(
        zip(methods, sns.color_palette("colorblind" if len(methods) <= 10 else "husl", len(methods)), strict=True)
    )


def plane(comparison: ComparisonRows, *, canvas: Canvas = OFF_SCREEN) -> Axes:
    """Suppression of the fact against specificity: each method's way through the budgets."""
    found = specificity(comparison, selections=comparison.budgets)
    cells = comparison.cell(intervention="suppress", group="target", neurons="method")
    data = found.merge(cells[["method", "selection", "mean"]], on=["method", "selection"])
    palette = _palette(comparison.methods)
    with canvas.panel(7.8, max(4.4, 1.4 + 0.19 * len(palette))) as axes:
        for method, part in data.groupby("method", sort=False):
            colour = palette[str(method)]
            axes.plot(part["mean"], part.nats, color=colour, linewidth=1.0, alpha=0.6)
            # Dots grow with the budget: every line begins at the small one.
            axes.scatter(part["mean"], part.nats, s=18 + 26 * np.arange(len(part)), color=colour, label=str(method))
            last = part.iloc[-1]
            axes.vlines(last["mean"], last.low, last.high, color=colour, alpha=0.35, linewidth=1.2)
        axes.axhline(0, color="0.2", linewidth=0.8)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.invert_xaxis()
        axes.set_title(f"How much, and how much of this fact alone{_up_to(comparison.budgets)}")
        axes.set(
            xlabel="relative change of p(answer), the fact itself",
            ylabel="nats lost beyond facts of other relations",
        )
        canvas.legend(axes, handles_of([axes]), "outside right center")
    return axes


def _up_to(budgets: Sequence[str]) -> str:
    """The first budget and the last: a title has no room for many."""
    return "" if not budgets else f": {budgets[0]}" if len(budgets) == 1 else f": {budgets[0]} to {budgets[-1][2:]}"


def overlap(comparison: ComparisonRows, *, canvas: Canvas = OFF_SCREEN) -> Axes:
    """Mean Jaccard overlap of two methods' top-k neurons of the same fact, at the largest budget up to 10."""
    budgets = [int(s[2:]) for s in comparison.budgets]
    small = [k for k in budgets if k <= 10]
    selection = f"k={max(small or budgets)}" if budgets else "refined"
    chosen = comparison.neurons[comparison.neurons.selection == selection]
    sets = {
        key: NeuronSet(zip(part.layer, part.neuron, strict=True)) for key, part in chosen.groupby(["method", "fact"])
    }
    facts = comparison.facts.fact[comparison.facts.status == "used"]
    units = {m["method"]: m.get("units", "neurons") for m in comparison.manifest["methods"]}
    empty = NeuronSet()

    def mean_jaccard(a: str, b: str) -> float:
        if units[a] != units[b]:
            return np.nan  # numbers of different things, not the same neurons
        return float(np.mean([sets.get((a, fact), empty).jaccard(sets.get((b, fact), empty)) for fact in facts]))

    methods = comparison.methods
    matrix = pd.DataFrame([[mean_jaccard(a, b) for b in methods] for a in methods], index=methods, columns=methods)
    with canvas.panel(2.4 + 0.62 * len(methods), 1.9 + 0.46 * len(methods)) as axes:
        _heat_map(axes, matrix, annot=True, fmt=".2f", cmap="Greens", vmin=0)
        axes.set(title=f"Overlap of neurons between methods (Jaccard, {selection})")
        _slant(axes, 40)
    return axes


def controls(comparison: ComparisonRows, *, canvas: Canvas = OFF_SCREEN) -> Axes:
    """Refined sets and their control sets, on the facts themselves: one row per method, one column per set."""
    table = comparison.cell(intervention=comparison.interventions[0], selection="refined", group="target")
    table = table[table.method.isin(comparison.methods)]
    wide = table.pivot_table(index="method", columns="neurons", values="mean", sort=False).reindex(comparison.methods)
    wide = wide.rename(columns=lambda name: "the method's own" if name == "method" else name.replace("_", " "))
    with canvas.panel(3.0 + 0.95 * wide.shape[1], 2.0 + 0.36 * len(wide)) as axes:
        _heat_map(axes, wide, annot=True, fmt=".1%", cmap="vlag", vmin=-1)
        axes.set(title="Change of p(answer): the method's neurons and control neurons", xlabel="", ylabel="")
        _slant(axes, 30)
    return axes


FIGURES: dict[str, DrawOf] = {
    "budgets": budgets,
    "controls": controls,
    "layers": layers,
    "overlap": overlap,
}


def figures_of(comparison: ComparisonRows) -> Mapping[str, Draw]:
    """The figures that a comparison has, by name: bars for each intervention that was measured, and `FIGURES`."""
    measured: dict[str, Draw] = {name: partial(bars, comparison, name) for name in comparison.interventions}
    others: dict[str, Draw] = {name: partial(draw, comparison) for name, draw in FIGURES.items()}
    if len(specificity(comparison, selections=comparison.budgets)):
        others["specificity"] = partial(plane, comparison)
    return measured | others


CAPTIONS = {
    "": "Relative change of the answer's probability when each method's refined neurons are changed, on held-out "
    "paraphrases of the fact and on control facts. Bars: mean over facts within relations, then "
    "over relations; lines: 95 % bootstrap intervals.",
    "budgets": "The paper's thresholds give every method a different number of neurons; here each method's k "
    "highest-scoring neurons are suppressed. Bands: 95 % intervals.",
    "controls": "Mean relative change of p(answer) on the facts themselves when the refined neurons, or as many "
    "control neurons, are changed: random ones, random ones of the same layers, equally active and strong, another "
    "fact's, those selected for most facts, and those with the lowest scores.",
    "specificity": "What suppressing each method's k highest-scoring neurons costs the fact (to the right: more), "
    "against what of it is the fact's own: nats of log-probability beyond what facts of other relations lose "
    "(up: more). Dots grow with the budget; vertical lines: 95 % interval at the largest.",
    "layers": "Share of each method's refined neurons by layer (0 is next to the embeddings).",
    "overlap": "How far two methods name the same neurons for the same fact. Agreement is not correctness.",
}


def alt_text(name: str) -> str:
    """What a figure shows and where its numbers are, for those who do not see it."""
    return ALTS.get(name) or f"Bars for each method and group: {name.replace('_', ' ')}. {ALTS['']}"


ALTS = {
    "": "The tables of refined neurons have the numbers.",
    "budgets": "Lines, one for each method: relative change of p(answer) by the number of neurons. The tables of equal "
    "budgets have the numbers.",
    "controls": "Map of methods and control neurons: relative change of p(answer). The tables of other neurons instead "
    "have the numbers.",
    "specificity": "Lines, one for each method, through the budgets: nats of this fact alone against the change "
    "of p(answer). The tables of what the methods cost have the numbers.",
    "layers": "Map of methods and layers: share of each method's refined neurons in each layer.",
    "overlap": "Map of methods and methods: mean Jaccard overlap of their neurons of the same fact.",
}
