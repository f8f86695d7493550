"""Figures of a trace: heat maps of facts, average effects by role, and what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kn_attrib.errors import ConfigError, unknown
from kn_attrib.evaluation.records.pages import CaptionedFigure
from kn_attrib.evaluation.records.style import OFF_SCREEN, Canvas, Panels, figure_of, figure_style, handles_of
from kn_attrib.evaluation.statistics.means import summarise_facts
from kn_attrib.evaluation.tracing.answer import COMPARED, MEASURES, Pair, pairs
from kn_attrib.evaluation.tracing.profiles import ALL_NEURONS, SCORES, SUPPRESSED
from kn_attrib.evaluation.tracing.roles import ROLES
from kn_attrib.evaluation.tracing.trace_rows import INDIRECT, TRACING, TraceRows

SHOWN = 6
"""Facts with heat maps on the page, one of each relation first."""
COLOURS = {"hidden": "Purples", "ffn": "Greens", "attention": "Reds"}
"""As in the paper; severed hidden states share those of hidden ones."""
KIND_NAMES = {
    "hidden": "hidden state",
    "ffn": "feed-forward output",
    "attention": "attention output",
    "hidden_severed_ffn": "hidden state, feed-forward severed",
    "hidden_severed_attention": "hidden state, attention severed",
}
IN_A_ROW = 3
"""Panels side by side."""
ROLE_COLOURS = dict(zip(ROLES, [sns.color_palette("colorblind")[i] for i in (7, 1, 2, 3, 4, 8, 0)], strict=True))
ROLE_STYLES = {"last_subject": "--", "answer": ":"}
"""A token may have two roles: the line drawn over the other's is broken, so that both are seen."""
INTERVALS = "95 % bootstrap intervals over relations, then facts"


def heat_map(result: TraceRows, fact: str, kind: str, axes: Axes) -> None:
    """Indirect effects of one fact's first traced text: tokens × layers; a star marks the subject's tokens.

    Raises
    ------
    ConfigError : the fact, or the kind, was not traced.
    """
    if kind not in result.kinds:
        raise ConfigError(unknown("kind", kind, result.kinds))
    _check_traced(result, fact)
    cells = result.cells[(result.cells.fact == fact) & (result.cells.kind == kind)]
    cells = cells[cells.prompt == cells.prompt.min()]
    prompts = result.prompts[(result.prompts.fact == fact) & (result.prompts.prompt == cells.prompt.iloc[0])].iloc[0]
    grid = cells.pivot_table(index="token", columns="layer", values="effect").to_numpy()
    words = cells.drop_duplicates("token").sort_values("token").text.tolist()
    subject = range(int(prompts.subject_start), int(prompts.subject_end))
    labels = [f"{shown(word)}{'*' if token in subject else ''}" for token, word in enumerate(words)]
    colours = COLOURS[kind.split("_")[0]]
    mesh = axes.pcolormesh(grid, cmap=colours, vmin=0, vmax=max(float(grid.max()), 1e-6), rasterized=True)
    axes.set_yticks(np.arange(len(labels)) + 0.5, labels)
    axes.invert_yaxis()
    ticks = range(0, grid.shape[1], max(1, grid.shape[1] // 6))
    axes.set_xticks([layer + 0.5 for layer in ticks], [str(layer) for layer in ticks])
    axes.set(title=KIND_NAMES[kind], xlabel=_layer(result, kind))
    axes.grid(visible=False)
    axes.figure.colorbar(mesh, ax=axes)


def effects_by_role(result: TraceRows, kind: str, axes: Axes) -> None:
    """Average indirect effects by layer, a line with its interval for each role.

    Raises
    ------
    ConfigError : the kind was not traced.
    """
    effects = result.average_effects(kind)
    for role, colour in ROLE_COLOURS.items():
        part = effects[effects.role == role].sort_values("layer")
        # In causal models nothing left of the subject is corrupted.
        if len(part) and (part["mean"] != 0).any():
            axes.plot(part.layer, 100 * part["mean"], ROLE_STYLES.get(role, "-"), color=colour, label=ROLES[role])
            axes.fill_between(part.layer, 100 * part.low, 100 * part.high, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(0, color="0.2", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title=KIND_NAMES[kind], xlabel=_layer(result, kind), ylabel="average indirect effect (points)")


def layer_curves(result: TraceRows, axes: Axes, methods: Sequence[str]) -> None:
    """Tracing's feed-forward effects and the neurons of each layer, each curve divided by its highest value."""
    curves = {f"tracing, {ROLES[role]}": result.curves(TRACING, INDIRECT, "ffn", role) for role in COMPARED}
    curves["suppression of all neurons"] = result.curves(ALL_NEURONS, SUPPRESSED, "neurons", "answer")
    curves |= {f"{method}, share of |score|": result.curves(method, SCORES, "neurons", "answer") for method in methods}
    colours = sns.color_palette("colorblind", len(curves))
    for number, ((name, curve), colour) in enumerate(zip(curves.items(), colours, strict=True)):
        if curve.empty:
            continue
        found = summarise_facts(curve, result.seed)
        scale = found["mean"].abs().max() or 1
        style = "-" if number < len(COMPARED) else "--" if number == len(COMPARED) else ":"
        axes.plot(found.index, found["mean"] / scale, style, color=colour, label=name)
        if number <= len(COMPARED):  # bands of all would hide one another
            axes.fill_between(found.index, found.low / scale, found.high / scale, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0, color="0.2", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="layer", ylabel="share of the curve's highest value")


def correlation_dots(found: Sequence[Pair], axes: Axes, over: str) -> None:
    """Correlations of tracing with each quantity, with their intervals; hollow where they may be zero."""
    names = list(dict.fromkeys(pair.name for pair in found))
    for place, role in enumerate(COMPARED):
        colour = ROLE_COLOURS[role]
        for pair in (each for each in found if each.role == role):
            value, low, high = pair.over_layers if over == "layers" else pair.over_facts
            y = names.index(pair.name) + 0.3 * (place - 0.5)
            axes.hlines(y, low, high, color=colour, linewidth=1.2)
            fill = colour if low > 0 or high < 0 else "white"
            axes.plot(value, y, "o", markersize=4, color=colour, markerfacecolor=fill)
        axes.plot([], [], "o-", markersize=4, color=colour, label=ROLES[role])
    axes.axvline(0, color="0.2", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-1.05, 1.05)
    axes.grid(visible=False, axis="y")
    axes.set(title=f"over {over}", xlabel="correlation")


def kinds_panels(result: TraceRows, fact: str | None = None, canvas: Canvas = OFF_SCREEN) -> Panels:
    """A panel for each kind in a new figure: heat maps of a fact, or average effects by role."""
    kinds = result.kinds
    columns = min(len(kinds), IN_A_ROW)
    rows = -(-len(kinds) // columns)
    with figure_style():
        height = 2.8 if fact is None else 1.1 + 0.24 * _n_tokens(result, fact)
        figure = canvas.make(figsize=(0.6 + 3.9 * columns, 0.4 + height * rows), layout="constrained")
        panels: Panels = figure.subplots(rows, columns, squeeze=False, sharey=fact is None).flatten()
        for number, axes in enumerate(panels):
            if number >= len(kinds):
                axes.remove()
            elif fact is not None:
                heat_map(result, fact, kinds[number], axes)
            else:
                effects_by_role(result, kinds[number], axes)
                axes.set_ylabel("" if number % columns else axes.get_ylabel())
        if fact is None:
            lines = handles_of(panels[: len(kinds)])
            figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=6, frameon=False)
    return panels[: len(kinds)]


def curves_figure(result: TraceRows) -> Figure:
    """`layer_curves` with its legend beside it."""
    with OFF_SCREEN.panel(8.5, 3.4) as axes:
        layer_curves(result, axes, result.methods)
        figure_of(axes).legend(loc="outside right upper", frameon=False)
    return figure_of(axes)


def answer_figure(result: TraceRows) -> Figure:
    """Correlations over layers and over facts, side by side."""
    found = pairs(result)
    n_names = len({pair.name for pair in found})
    with OFF_SCREEN.panels(2, 9.5, 1.3 + 0.32 * n_names, sharey=True) as panels:
        for axes, over in zip(panels, ("layers", "facts"), strict=True):
            correlation_dots(found, axes, over)
        OFF_SCREEN.legend(panels[0], handles_of(panels[:1]), "outside lower center", ncols=2)
    return figure_of(panels)


def trace_figures(result: TraceRows) -> dict[str, CaptionedFigure]:
    """All figures of a page; none where nothing was traced."""
    if not result.traced:
        return {}
    caption = "Average indirect effects on p(answer), in points, of restoring one state (feed-forward and attention: a "
    caption += f"window) at the tokens of each role. Bands: {INTERVALS}."
    found = {"effects": CaptionedFigure(figure_of(kinds_panels(result)), caption)}
    if "ffn" in result.kinds:
        what = (
            "Feed-forward effects of tracing by layer, and what each layer's neurons are at the answer position; each "
        )
        found["layers"] = CaptionedFigure(curves_figure(result), f"{what}curve divided by its highest value.")
        text = f"Correlation of tracing's feed-forward effects with {', '.join(MEASURES.values())} by layer. "
        text += f"Lines: {INTERVALS}; hollow where zero lies within."
        found["answer"] = CaptionedFigure(answer_figure(result), text)
    for number, fact in enumerate(_some_facts(result)):
        text = f"{fact}: indirect effects of restoring each state. Stars: the subject. White: no effect, or below zero."
        found[f"fact_{number}"] = CaptionedFigure(figure_of(kinds_panels(result, fact)), text)
    return found


def shown(word: str) -> str:
    """A token as a label shows it: a space that it begins with as an underscore, dollars as they are."""
    text = word.replace("\n", "⏎").replace("$", r"\$")
    return f"_{text[1:]}" if text.startswith(" ") else text


def _layer(result: TraceRows, kind: str) -> str:
    """What stands at the axis of layers."""
    width = result.manifest["window"]
    return "layer" if kind.startswith("hidden") or width == 1 else f"layer (middle of {width} restored)"


def _n_tokens(result: TraceRows, fact: str) -> int:
    _check_traced(result, fact)
    return int(result.cells[result.cells.fact == fact].token.max()) + 1


def _some_facts(result: TraceRows) -> list[str]:
    first = result.cells.drop_duplicates("fact")
    turn = first.groupby("relation").cumcount()
    order: pd.DataFrame = first.assign(turn=turn).sort_values("turn", kind="stable")
    return order.fact.tolist()[:SHOWN]


def _check_traced(result: TraceRows, fact: str) -> None:
    if fact not in result.traced:
        raise ConfigError(unknown("traced fact", fact, result.traced))
