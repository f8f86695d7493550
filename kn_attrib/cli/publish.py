"""A comparison as files and on the screen."""

from __future__ import annotations

from pathlib import Path

from kn_attrib.cli import screen
from kn_attrib.evaluation import Comparison
from kn_attrib.evaluation.records.pages import save_figures
from kn_attrib.evaluation.records.style import figure_of
from kn_attrib.evaluation.report.figures import figures_of
from kn_attrib.evaluation.report.grid import Grid
from kn_attrib.evaluation.report.grid_figure import main_effects
from kn_attrib.evaluation.report.leaderboard import BEYOND, has_leaderboard, leaderboard_text
from kn_attrib.evaluation.report.questions import answers

ANSWER = ("question", "short", "answer", "verdict")
"""What the JSON document holds of an answer."""


def publish(comparison: Comparison, out: Path) -> None:
    """Write figures and report, and print the tables."""
    figures = {name: figure_of(draw()) for name, draw in figures_of(comparison).items()}
    save_figures(figures, out / "figures")
    report = comparison.report(out / "report.html", figures)
    _print_facts(comparison)
    screen.say(comparison.verdict() + "\n", verdict=comparison.verdict())
    _print_tables(comparison)
    answered = answers(comparison)
    screen.give(answers=[{name: getattr(each, name) for name in ANSWER} for each in answered])
    for each in answered:
        screen.say(f"{each.question}\n  {each.short}\n    {each.answer}\n")
    files = {"folder": out, "report": report, "figures": [out / "figures" / f"{name}.svg" for name in figures]}
    screen.say(f"Rows, figures and manifest: {out}\nReport: {report}", files=files)


def _print_facts(comparison: Comparison) -> None:
    model, seconds = comparison.manifest["model"]["name"], comparison.manifest["seconds"]
    used = comparison.facts[comparison.facts.status == "used"]
    per_fact = {"prompts": used.prompts.mean(), "held_out": used.held_out.mean()}
    screen.say(
        f"{model}: {len(used)} facts of {used.relation.nunique()} relations, {per_fact['prompts']:.1f} attribution "
        f"prompts and {per_fact['held_out']:.1f} held-out prompts per fact, {seconds:.0f} s."
    )
    left_out = comparison.facts.status.value_counts().drop("used", errors="ignore").to_dict()
    named = {"limit": "beyond --limit (they serve as controls)"}
    found = ", ".join(f"{n} {named.get(status, status)}" for status, n in left_out.items())
    screen.say(f"Left out: {found or 'none'}.")
    texts = comparison.manifest["facts"].get("left_out_texts", {})
    if texts:
        by_cause = ", ".join(f"{n} ({cause})" for cause, n in texts.items())
        screen.say(f"Texts left out: {by_cause}.")
    counts = {"used": len(used), "relations": used.relation.nunique(), **per_fact, "left_out": left_out}
    screen.give(model=model, seconds=seconds, facts={**counts, "left_out_texts": texts})


def _print_tables(comparison: Comparison) -> None:
    cells = comparison.cell(selection="refined")
    screen.give(effects=cells[cells.method.isin(comparison.methods)])
    for intervention in comparison.interventions:
        title = f"Relative change of p(answer) in %, refined neurons, {intervention}: mean [95 % interval]"
        # The unit is in the title: a terminal has no room for it in every cell.
        screen.show_frame(comparison.table(intervention).replace(" %", "", regex=True), title)
        screen.say("")
    if comparison.interventions and comparison.manifest["settings"]["controls"]:
        title = f"The same facts with other neurons instead, {comparison.interventions[0]}, in %"
        table = comparison.control_table(comparison.interventions[0]).replace(" %", "", regex=True)
        screen.show_frame(table.drop(columns=["neurons", "none"]), title)
        screen.say("")
    if has_leaderboard(comparison):
        _print_leaderboard(comparison)


def _print_leaderboard(comparison: Comparison) -> None:
    """In two tables: a terminal has no room for both numbers of each budget side by side."""
    board = leaderboard_text(comparison)
    beyond = [str(column) for column in board if str(column).endswith(BEYOND)]
    title = "Equal budgets, neurons suppressed: relative change of p(answer) in %, and share of direct search's"
    screen.show_frame(board.drop(columns=beyond), title, leaderboard=comparison.leaderboard())
    screen.say("")
    if beyond:
        title = "Specificity of equal budgets: nats that the fact loses beyond what facts of other relations lose"
        screen.show_frame(board[beyond].rename(columns=lambda column: str(column).removesuffix(BEYOND)), title)
        screen.say("")


def publish_grid(grid: Grid, out: Path) -> None:
    """Write a grid's figure and page, and print its main effects."""
    save_figures({"effects": figure_of(main_effects(grid.effects()))}, out / "figures")
    report = grid.report(out / "report.html")
    title = "Main effects: relative change of p(answer) on held-out paraphrases, refined neurons [95 % interval]"
    screen.show_frame(grid.table(), title, effects=grid.effects())
    files = {"folder": out, "report": report, "figures": [out / "figures" / "effects.svg"]}
    screen.say(f"\nRows and each combination's own comparison: {out}\nReport: {report}", files=files)
