"""``kn-attrib score``: the neurons of a few facts by one method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kn_attrib.cli import options, screen
from kn_attrib.errors import ConfigError
from kn_attrib.scoring.refinement import Refinement, refine_all
from kn_attrib.scoring.registry import make_scorer, with_params
from kn_attrib.scoring.score import score
from kn_attrib.scoring.scorer import Scorer
from kn_attrib.store import check_new_file

NAME = "score"


def _seeded(scorer: Scorer, seed: int | None) -> Scorer:
    """The method with the seed of ``--seed``, if one is given."""
    params, default = scorer.params(), scorer.defaults().get("seed")
    if seed is None:
        return scorer
    if "seed" not in params:
        raise ConfigError(f"--seed is {seed}, and {scorer.name} draws nothing at random; leave --seed out.")
    if params["seed"] not in (default, seed):
        raise ConfigError(f"--seed is {seed}, and --method says that its seed is {params['seed']}; give one of them.")
    return with_params(type(scorer), params | {"seed": seed})


def command(
    context: typer.Context,
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
    config: options.Config = None,  # noqa: ARG001  # read before all others, by `read_config`
) -> None:
    """Score every neuron for some facts and print the refined neurons of each.

    Example: kn-attrib score --fact capital:France --method integrated_gradients:dai2022 --out france.safetensors
    """
    if out is None:
        options.refuse(context, "overwrite", without="--out")
    else:
        check_new_file(out, overwrite)
    if fact:
        options.refuse(context, "limit", beside="--fact")
    options.plugins(plugin)
    chosen = options.open_facts(facts, relations, answer_words)
    some = [chosen[fact]] if fact else list(chosen.spread(limit) if limit else chosen)
    scorer = _seeded(make_scorer(method), seed)
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
