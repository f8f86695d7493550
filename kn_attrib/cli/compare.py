"""``kn-attrib compare``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from matplotlib.figure import Figure

from kn_attrib.cli import options
from kn_attrib.evaluation import DEFAULT_METHODS, Comparison, ComparisonInterrupted, compare
from kn_attrib.evaluation.comparison import check_folder
from kn_attrib.evaluation.figures import FIGURES
from kn_attrib.evaluation.leaderboard import leaderboard_text
from kn_attrib.registry import list_methods
from kn_attrib.store import atomic_path, check_writable

NAME = "compare"


def command(
    model: options.Model = "zoo:bert-facts",
    facts: options.Facts = "world",
    methods: Annotated[
        str,
        typer.Option(
            help="Methods separated by commas: name, name:preset or name(param=value), with @nmf, @pca(k=8) or @heads "
            "to score these instead of neurons; 'all' stands for all that score neurons."
        ),
    ] = ",".join(DEFAULT_METHODS),
    relations: options.Relations = "",
    answer_words: options.AnswerWords = 0,
    limit: options.Limit = 51,
    max_prompts: Annotated[int, typer.Option(help="Most attribution prompts per fact; 0 for all.", min=0)] = 0,
    budgets: Annotated[str, typer.Option(help="Numbers of neurons for the equal-budget comparison.")] = "1,5,10,20",
    refinement: Annotated[str, typer.Option(help="Preset of the refinement: dai2022 or eleuther.")] = "",
    factor: Annotated[float, typer.Option(help="Factor of the amplification.")] = 2.0,
    control_facts: Annotated[int, typer.Option(help="Most facts in each control group.", min=0)] = 5,
    keep: Annotated[str, typer.Option(help="Keep facts that are: unknown, ambiguous, leaking (commas).")] = "",
    normalised: Annotated[
        bool, typer.Option(help="p(answer) of several tokens is their geometric mean instead of their product.")
    ] = False,
    seed: options.Seed = 0,
    device: options.Device = "",
    dtype: options.Dtype = "float32",
    plugin: options.Plugin = None,
    out: Annotated[Path, typer.Option(help="Folder for rows, figures, report and manifest.")] = Path("runs/compare"),
    overwrite: Annotated[bool, typer.Option(help="Write over what the folder holds.")] = False,
    config: options.Config = None,
) -> None:
    """Compare attribution methods on one model and its facts; write table, figures and report.

    Example: kn-attrib compare --model zoo:gpt2-facts --methods integrated_gradients,random --limit 24 --out runs/first
    """
    check_writable(check_folder(out, overwrite))
    options.plugins(plugin)
    chosen = [name for part in options.split(methods) for name in (list_methods() if part == "all" else [part])]
    try:
        comparison = compare(
            options.open_model(model, dtype, device),
            options.open_facts(facts, relations, answer_words),
            chosen,
            budgets=options.integers("budgets", budgets),
            refinement=refinement or None,
            factor=factor,
            control_facts=control_facts,
            limit=limit or None,
            max_prompts=max_prompts or None,
            keep=options.split(keep),
            seed=seed,
            normalised=normalised,
        )
    except ComparisonInterrupted as interrupt:
        partial = interrupt.comparison.save(out, overwrite=True)
        done = ", ".join(interrupt.comparison.methods) or "none"
        typer.echo(
            f"Interrupted. {len(interrupt.comparison.rows)} rows kept in {partial} (methods finished: {done}).",
            err=True,
        )
        raise typer.Exit(130) from interrupt
    _publish(comparison, out)


def _publish(comparison: Comparison, out: Path) -> None:
    comparison.save(out, overwrite=True)
    figures: dict[str, Figure] = {}
    for name in FIGURES:
        figure = figures[name] = comparison.plot(name)
        with atomic_path(out / "figures" / f"{name}.svg") as svg:
            figure.savefig(svg)
        with atomic_path(out / "figures" / f"{name}.png") as png:
            figure.savefig(png, dpi=150)
    report = comparison.report(out / "report.html", figures)
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
        typer.echo("Texts left out: " + ", ".join(f"{n} ({cause})" for cause, n in texts.items()) + ".")
    typer.echo(comparison.verdict() + "\n")
    for intervention, what in (("suppress", "suppressed"), ("amplify", "amplified")):
        title = f"Relative change of p(answer) in %, refined neurons {what}: mean [95 % interval]"
        # The unit is in the title: a terminal has no room for it in every cell.
        options.show_frame(comparison.table(intervention).replace(" %", "", regex=True), title)
        typer.echo("")
    if len(comparison.selections) > 1:
        title = "Equal budgets, neurons suppressed: relative change of p(answer) in %, and share of direct search's"
        options.show_frame(leaderboard_text(comparison), title)
        typer.echo("")
    typer.echo(f"Rows, figures and manifest: {out}\nReport: {report}")
