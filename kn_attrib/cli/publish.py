"""A comparison as files and on the screen."""

from __future__ import annotations

from pathlib import Path

import typer

from kn_attrib.cli import screen
from kn_attrib.evaluation import Comparison
from kn_attrib.evaluation.records.pages import save_figures
from kn_attrib.evaluation.records.style import figure_of
from kn_attrib.evaluation.report.figures import figures_of
from kn_attrib.evaluation.report.grid import Grid
from kn_attrib.evaluation.report.grid_figure import main_effects
from kn_attrib.evaluation.report.leaderboard import BEYOND, has_leaderboard, leaderboard_text
from kn_attrib.evaluation.report.questions import answers


def publish(comparison: Comparison, out: Path) -> None:
    """Write figures and report, and print the tables."""
    figures = {name: figure_of(draw()) for name, draw in figures_of(comparison).items()}
    save_figures(figures, out / "figures")
    report = comparison.report(out / "report.html", figures)
    _print_facts(comparison)
    typer.echo(comparison.verdict() + "\n")
    _print_tables(comparison)
    for question in answers(comparison):
        typer.echo(f"{question.question}\n  {question.short}\n    {question.answer}\n")
    typer.echo(f"Rows, figures and manifest: {out}\nReport: {report}")


def _print_facts(comparison: Comparison) -> None:
    used = comparison.facts[comparison.facts.status == "used"]
    typer.echo(
        f"{comparison.manifest['model']['name']}: {len(used)} facts of {used.relation.nunique()} relations, "
        f"{used.prompts.mean():.1f} attribution prompts and {used.held_out.mean():.1f} held-out prompts per fact, "
        f"{comparison.manifest['seconds']:.0f} s."
    )
    left_out = comparison.facts.status.value_counts().drop("used", errors="ignore")
    named = {"limit": "beyond --limit (they serve as controls)"}
    found = ", ".join(f"{n} {named.get(status, status)}" for status, n in left_out.items())
    typer.echo(f"Left out: {found or 'none'}.")
    texts = comparison.manifest["facts"].get("left_out_texts", {})
    if texts:
        by_cause = ", ".join(f"{n} ({cause})" for cause, n in texts.items())
        typer.echo(f"Texts left out: {by_cause}.")


def _print_tables(comparison: Comparison) -> None:
    for intervention in comparison.interventions:
        title = f"Relative change of p(answer) in %, refined neurons, {intervention}: mean [95 % interval]"
        # The unit is in the title: a terminal has no room for it in every cell.
        screen.show_frame(comparison.table(intervention).replace(" %", "", regex=True), title)
        typer.echo("")
    if comparison.interventions and comparison.manifest["settings"]["controls"]:
        title = f"The same facts with other neurons instead, {comparison.interventions[0]}, in %"
        table = comparison.control_table(comparison.interventions[0]).replace(" %", "", regex=True)
        screen.show_frame(table.drop(columns=["neurons", "none"]), title)
        typer.echo("")
    if has_leaderboard(comparison):
        _print_leaderboard(comparison)


def _print_leaderboard(comparison: Comparison) -> None:
    """In two tables: a terminal has no room for both numbers of each budget side by side."""
    board = leaderboard_text(comparison)
    beyond = [str(column) for column in board if str(column).endswith(BEYOND)]
    title = "Equal budgets, neurons suppressed: relative change of p(answer) in %, and share of direct search's"
    screen.show_frame(board.drop(columns=beyond), title)
    typer.echo("")
    if beyond:
        title = "Specificity of equal budgets: nats that the fact loses beyond what facts of other relations lose"
        screen.show_frame(board[beyond].rename(columns=lambda column: str(column).removesuffix(BEYOND)), title)
        typer.echo("")


def publish_grid(grid: Grid, out: Path) -> None:
    """Write a grid's figure and page, and print its main effects."""
    save_figures({"effects": figure_of(main_effects(grid.effects()))}, out / "figures")
    report = grid.report(out / "report.html")
    title = "Main effects: relative change of p(answer) on held-out paraphrases, refined neurons [95 % interval]"
    screen.show_frame(grid.table(), title)
    typer.echo(f"\nRows and each combination's own comparison: {out}\nReport: {report}")
