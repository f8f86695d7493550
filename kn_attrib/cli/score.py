"""``kn-attrib score``: the neurons of a few facts by one method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kn_attrib.cli import options, screen
from kn_attrib.scoring.refinement import Refinement, refine_all
from kn_attrib.scoring.registry import make_scorer
from kn_attrib.scoring.score import score
from kn_attrib.store import check_new_file

NAME = "score"


def command(
    model: options.Model = "zoo:bert-facts",
    chat: options.Chat = False,
    facts: options.Facts = "world",
    fact: Annotated[str, typer.Option(help="Only the fact with this id, e.g. capital:France.")] = "",
    method: Annotated[str, typer.Option(help="name, name:preset or name(param=value).")] = "integrated_gradients",
    refinement: Annotated[str, typer.Option(help="Preset of the refinement: dai2022 or eleuther.")] = "",
    relations: options.Relations = "",
    answer_words: options.AnswerWords = 0,
    limit: options.Limit = 10,
    seed: Annotated[int | None, typer.Option(help="Seed of methods that draw at random.")] = None,
    device: options.Device = "",
    dtype: options.Dtype = "float32",
    plugin: options.Plugin = None,
    out: Annotated[Path | None, typer.Option(help="Write all scores to this .safetensors file.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Write over the file.")] = False,
    config: options.Config = None,
) -> None:
    """Score every neuron for some facts and print the refined neurons of each.

    Example: kn-attrib score --fact capital:France --method integrated_gradients:dai2022 --out france.safetensors
    """
    if out is not None:
        check_new_file(out, overwrite)
    options.plugins(plugin)
    chosen = options.open_facts(facts, relations, answer_words)
    some = [chosen[fact]] if fact else list(chosen.spread(limit) if limit else chosen)
    scorer = make_scorer(method)
    if seed is not None and "seed" in scorer.params():
        scorer = type(scorer)(**(scorer.params() | {"seed": seed}))
    opened = options.open_model(model, dtype, device, chat)
    scores = score(opened, some, scorer)
    settings = Refinement.preset(refinement) if refinement else Refinement(threshold=scorer.threshold)
    rows, found = [], []
    for name, neurons in refine_all(scores, settings).items():
        mean = scores.for_fact(name).values.mean(0)
        ordered = sorted(neurons, key=lambda n: -float(mean[n.layer, n.index]))
        listed = [{"layer": n.layer, "index": n.index, "score": float(mean[n.layer, n.index])} for n in ordered]
        found.append({"fact": name, "neurons": listed})
        highest = "  ".join("L{layer}:{index} ({score:.3g})".format(**each) for each in listed[:6])
        rows.append([name, len(neurons), highest])
    title = f"{scorer!r} on {opened.name}"
    about = {"model": opened.name, "method": scorer.name, "params": scorer.params()}
    screen.show(rows, ["fact", "neurons", "highest mean scores"], title, **about, facts=found)
    if out is not None:
        scores.save(out)
        screen.say(f"Scores: {out}", files={"scores": out})
