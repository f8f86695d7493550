"""``kn-attrib protocol inj | del``: two published benchmarks of methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from kn_attrib.cli import options, screen
from kn_attrib.errors import ConfigError, unknown
from kn_attrib.evaluation import ProtocolResult, run_deletion, run_injection
from kn_attrib.evaluation.protocols.injection import METHODS, Information
from kn_attrib.evaluation.protocols.tables import before_deletion, deletion_table, injection_table
from kn_attrib.evaluation.records.text import markdown

NAME = "protocol"
INFORMATION: tuple[Information, ...] = ("counterfactual", "unknown")
app = typer.Typer(
    help="Published benchmarks: facts injected into known neurons (inj), memorised facts deleted (del).",
    no_args_is_help=True,
    rich_markup_mode=None,
)
ALL_METHODS = ",".join(METHODS)


@app.command("inj")
def inj(
    model: options.Model = "zoo:gpt2-facts",
    facts: options.Facts = "world",
    methods: options.NeuronMethods = ALL_METHODS,
    ratio: Annotated[str, typer.Option(help="Shares of all neurons to inject into, by commas.")] = "0.01",
    information: Annotated[
        str, typer.Option(help="counterfactual (known subjects get another answer) or unknown (facts as they are).")
    ] = "counterfactual",
    loss: Annotated[float, typer.Option(help="Fine-tune until the mean −log p is below this.")] = 0.05,
    steps: Annotated[int, typer.Option(help="Most steps of fine-tuning.")] = 200,
    rate: Annotated[float, typer.Option(help="Its learning rate.")] = 0.05,
    relations: options.Relations = "",
    answer_words: options.AnswerWords = 0,
    limit: options.Limit = 34,
    max_prompts: options.Prompts = 0,
    seed: options.Seed = 0,
    device: options.Device = "",
    dtype: options.Dtype = "float32",
    plugin: options.Plugin = None,
    out: options.RowsOut = Path("runs/inj"),
    overwrite: options.Overwrite = False,
    markdown_tables: options.Markdown = False,
) -> None:
    """INJ: inject new facts into random value vectors and see which methods find them.

    Example: kn-attrib protocol inj --methods slimming,ablation,random --ratio 0.01,0.001 --limit 17 --out runs/inj
    """
    options.prepare(out, overwrite, plugin)
    if information not in INFORMATION:
        raise ConfigError(unknown("information", information, INFORMATION))
    ratios = options.numbers("ratio", ratio)
    result = run_injection(
        options.open_model(model, dtype, device),
        options.open_facts(facts, relations, answer_words),
        options.split(methods),
        ratios=ratios,
        information=next(kind for kind in INFORMATION if kind == information),
        loss=loss,
        steps=steps,
        rate=rate,
        limit=limit or None,
        max_prompts=max_prompts or None,
        seed=seed,
    )
    _show_inj(result, ratios, markdown_tables)
    typer.echo(f"Rows, facts, neurons and manifest: {result.save(out, overwrite=True)}")


def _show_inj(result: ProtocolResult, ratios: list[float], as_markdown: bool) -> None:
    for ratio in ratios:
        reached, tried = (result.manifest[name][str(ratio)] for name in ("reached", "tried"))
        what = f"{result.manifest['model']['name']}, {ratio:.1%} of the neurons: {reached} of {tried} facts injected"
        if not reached:
            typer.echo(f"{what}; nothing to find. Try more --steps, a higher --rate or a higher --ratio.\n")
            continue
        for truth, of in (("all", "all neurons injected into"), ("speaking", "those active at the answer position")):
            n = int(result.cell(ratio=ratio, truth=truth).n.max())
            title = f"{what}. Recall in each layer's top k %, of {of} (n = {n}), in %: mean [95 % interval]"
            _show(injection_table(result, ratio, truth=truth), title, as_markdown)


def _show(table: pd.DataFrame, title: str, as_markdown: bool) -> None:
    if as_markdown:
        typer.echo(f"{title}\n\n{markdown(table)}\n")
        return
    screen.show_frame(table, title)
    typer.echo("")


@app.command("del")
def delete(
    model: options.Model = "zoo:gpt2-facts",
    facts: options.Facts = "world",
    methods: options.NeuronMethods = ALL_METHODS,
    ratio: Annotated[str, typer.Option(help="Shares of each layer's neurons to drop, by commas.")] = "0.001,0.005",
    negatives: Annotated[int, typer.Option(help="Most other memorised facts.", min=0)] = 100,
    text: Annotated[Path | None, typer.Option(help="Plain text for perplexity, a sentence a line.")] = None,
    first_layer: Annotated[int, typer.Option(help="Layers below it lose nothing.", min=0)] = 0,
    relations: options.Relations = "",
    answer_words: options.AnswerWords = 0,
    limit: options.Limit = 34,
    max_prompts: options.Prompts = 0,
    seed: options.Seed = 0,
    device: options.Device = "",
    dtype: options.Dtype = "float32",
    plugin: options.Plugin = None,
    out: options.RowsOut = Path("runs/del"),
    overwrite: options.Overwrite = False,
    markdown_tables: options.Markdown = False,
) -> None:
    """DEL: drop each layer's top neurons and see whether the fact is forgotten, and nothing else.

    Example: kn-attrib protocol del --methods slimming,ablation,random --ratio 0.001,0.005 --limit 17 --out runs/del
    """
    options.prepare(out, overwrite, plugin)
    ratios = options.numbers("ratio", ratio)
    result = run_deletion(
        options.open_model(model, dtype, device),
        options.open_facts(facts, relations, answer_words),
        options.split(methods),
        ratios=ratios,
        negatives=negatives,
        text=None if text is None else options.lines(text),
        first_layer=first_layer,
        limit=limit or None,
        max_prompts=max_prompts or None,
        seed=seed,
    )
    start, end = result.manifest["model"]["name"], f"({before_deletion(result)}). Change, accuracies in %"
    for each in ratios:
        title = f"{start}, the top {each:.1%} of each layer dropped {end}: mean [95 % interval]"
        _show(deletion_table(result, each), title, markdown_tables)
    typer.echo(f"Rows, facts, neurons and manifest: {result.save(out, overwrite=True)}")
