"""The HTML report of a comparison: one self-contained file, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from kn_attrib.evaluation.records.pages import environment, svg
from kn_attrib.evaluation.records.style import figure_of
from kn_attrib.evaluation.records.text import NONE, interval_text, number_text
from kn_attrib.evaluation.report.agreement import agreement_table, intersections
from kn_attrib.evaluation.report.answer import Answer
from kn_attrib.evaluation.report.answer_figure import answer_figure, answer_text
from kn_attrib.evaluation.report.comparison_rows import ComparisonRows, rows_with
from kn_attrib.evaluation.report.curves import areas
from kn_attrib.evaluation.report.figures import CAPTIONS, alt_text, figures_of
from kn_attrib.evaluation.report.leaderboard import BEYOND, leaderboard_text
from kn_attrib.evaluation.report.questions import answers
from kn_attrib.evaluation.statistics.sample import LEAST_FACTS, LEAST_RELATIONS, Sample
from kn_attrib.evaluation.vocabulary import DROPOUT, EVERYWHERE, HEADLINE, REASONS, WHOLE_FFN
from kn_attrib.store import write_text

SHOWN = 12
"""Most neurons of a fact that are named."""
DRILLED = 60
"""Most facts that the page shows one by one; the rows hold all. Up to as many are listed on paper, too."""


def write_report(comparison: ComparisonRows, path: Path, figures: Mapping[str, Figure]) -> Path:
    """Write the report of a comparison to one HTML file.

    Parameters
    ----------
    figures : by name, where they are drawn already.
    """
    titles = {name: _title(comparison, name) for name in comparison.interventions}
    first = comparison.interventions[0]
    budgets = [(s, comparison.table(first, s)) for s in comparison.budgets]
    template = environment().get_template("report.html")
    html = template.render(
        comparison=comparison,
        manifest=comparison.manifest,
        answers=_charted(answers(comparison)),
        tables=[
            (title, comparison.table(name), comparison.table(name, metric="delta_logprob"))
            for name, title in titles.items()
        ],
        controls=[(title, comparison.control_table(name)) for name, title in titles.items()],
        ceiling=_ceiling(comparison),
        agreements=_agreements(comparison),
        areas=_areas(comparison),
        budgets=budgets,
        leaderboard=_boards(comparison) if budgets and first == "suppress" else None,
        other_metrics=_other_metrics(comparison),
        figures=_drawn(comparison, figures),
        status=_status(comparison.facts),
        used=comparison.facts[comparison.facts.status == "used"].to_dict("records"),
        drilled=drill_down(comparison),
        few=DRILLED,
        least=Sample(LEAST_FACTS, LEAST_RELATIONS),
    )
    write_text(path, html)
    return path


def _charted(found: list[Answer]) -> list[tuple[Answer, Markup | None]]:
    """Each answer with the chart of its numbers, if it has any."""
    return [
        (each, svg(figure_of(answer_figure(each)), f"chart-{i}", answer_text(each)) if each.panels else None)
        for i, each in enumerate(found, 1)
    ]


def _boards(comparison: ComparisonRows) -> list[tuple[str, pd.DataFrame]]:
    """The leaderboard with captions, in two tables: one with both numbers of each budget would be too wide."""
    board = leaderboard_text(comparison)
    beyond = [str(column) for column in board if str(column).endswith(BEYOND)]
    found = [("Cost, and relative change of p(answer) in % at equal budgets", board.drop(columns=beyond))]
    if beyond:
        found.append(("Specificity at equal budgets, in nats", board[beyond]))
    return found


def _drawn(comparison: ComparisonRows, figures: Mapping[str, Figure]) -> list[tuple[str, str, Markup]]:
    """Name, caption and image of each figure."""
    found = []
    for name, draw in figures_of(comparison).items():
        image = svg(figures.get(name) or figure_of(draw()), name, alt_text(name))
        found.append((name, CAPTIONS.get(name, CAPTIONS[""]), image))
    return found


def table_html(comparison: ComparisonRows) -> str:
    """The suppression table with its precondition, for notebooks."""
    template = environment().get_template("table.html")
    return template.render(comparison=comparison, table=comparison.table())


TITLES = {
    "suppress": "Suppression (×0)",
    "amplify": "Amplification (×{factor:g})",
    "mean": "Set to the mean over other facts of the relation",
    "resample": "Set to what they are for another fact of the relation",
}


def _title(comparison: ComparisonRows, intervention: str) -> str:
    name = TITLES[intervention.removesuffix(EVERYWHERE)].format(factor=comparison.manifest["settings"]["factor"])
    return f"{name}, at all tokens" if intervention.endswith(EVERYWHERE) else name


def _ceiling(comparison: ComparisonRows) -> pd.DataFrame:
    """Whole feed-forward blocks and random shares of all neurons at zero, as text."""
    names = {WHOLE_FFN: "feed-forward blocks, {}", DROPOUT: "random share {} of all neurons"}
    cells = comparison.cell(intervention="suppress")
    cells = cells[cells.method.isin(list(names))]
    cells = cells.assign(
        what=[names[r.method].format(r.selection) for r in cells.itertuples()],
        text=_intervals(cells, percent=True),
    )
    table = cells.pivot_table(index="what", columns="group", values="text", aggfunc="first", sort=False)
    filled: pd.DataFrame = table.fillna("–").rename_axis(index=None, columns=None)
    return filled


def _agreements(comparison: ComparisonRows) -> pd.DataFrame:
    """Agreement with the consensus of the other methods, and neurons shared between facts, as text."""
    table = intersections(comparison).map(lambda value: "–" if pd.isna(value) else f"{value:.2f}")
    found = agreement_table(comparison)
    if len(found):
        texts = _intervals(found, percent=False)
        table.insert(0, "Spearman with the others' consensus", pd.Series(texts, index=found.index))
    filled: pd.DataFrame = table.fillna("–")
    return filled


def _areas(comparison: ComparisonRows) -> pd.DataFrame | None:
    """Areas under deletion and insertion curves, as text; None where they were not measured."""
    found = areas(comparison)
    if not len(found):
        return None
    found["text"] = _intervals(found, percent=True)
    table: pd.DataFrame = found.pivot_table(index="method", columns="area", values="text", aggfunc="first", sort=False)
    ordered: pd.DataFrame = table.reindex([m for m in comparison.methods if m in table.index])
    ordered.columns.name = None
    return ordered


def _intervals(frame: pd.DataFrame, percent: bool) -> list[str]:
    numbers = frame[["mean", "low", "high"]].to_numpy(dtype=float)
    return [interval_text(float(m), float(low), float(high), percent) for m, low, high in numbers]


def drill_down(comparison: ComparisonRows) -> dict[str, pd.DataFrame]:
    """Fact -> methods × (refined neurons, and what suppressing them does to each group), as text.

    Of more than `DRILLED` facts those that change most and those that change least, on average over methods.
    """
    rows = rows_with(
        comparison.rows,
        selection="refined",
        neurons="method",
        intervention=comparison.interventions[0],
        metric=HEADLINE,
    )
    rows = rows[rows.method.isin(comparison.methods)]
    change = rows[rows.group == "target"].groupby("fact", sort=False).value.mean().sort_values(kind="stable").index
    if len(change) > DRILLED:
        rows = rows[rows.fact.isin([*change[: DRILLED // 2], *change[-DRILLED // 2 :]])]
    refined = rows_with(comparison.neurons, selection="refined")
    refined = refined[refined.fact.isin(rows.fact.unique())]
    names = {key: _listed(part) for key, part in refined.groupby(["fact", "method"])}
    found = {}
    for fact, part in rows.groupby("fact", sort=False):
        table = part.pivot_table(index="method", columns="group", values="value", sort=False)
        text = table.reindex(comparison.methods).map(_change)
        text.insert(0, "refined neurons", [names.get((fact, method), "none") for method in text.index])
        found[str(fact)] = text.rename_axis(index=None, columns=None)
    return found


def _listed(neurons: pd.DataFrame) -> str:
    """The first neurons by name, and their number where there are more."""
    shown = neurons.head(SHOWN)
    text = ", ".join(f"L{layer}:{index}" for layer, index in zip(shown.layer, shown.neuron, strict=True))
    return f"{text} … ({len(neurons)})" if len(neurons) > SHOWN else text


def _change(value: float) -> str:
    return NONE if pd.isna(value) else f"{number_text(value, 1, scale=100, signed=True)} %"


def _other_metrics(comparison: ComparisonRows) -> list[tuple[str, pd.DataFrame]]:
    names = {
        "mean_relative_change": "Mean over prompts of the relative change (mean of ratios)",
        "flip": "Share of prompts whose most likely token changes",
        "rank_after": "Mean rank of the answer afterwards",
        "perplexity_after": "Perplexity of the answer afterwards",
    }
    first = comparison.interventions[0]
    return [(title, comparison.table(first, metric=metric)) for metric, title in names.items()]


def _status(facts: pd.DataFrame) -> list[dict[str, Any]]:
    counts = facts.status.value_counts()
    return [
        {"status": status, "n": int(counts[status]), "reason": reason}
        for status, reason in REASONS.items()
        if status in counts
    ]
