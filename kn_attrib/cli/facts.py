"""``kn-attrib facts``: what a fact set holds, and what a model is given of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import pandas as pd
import typer

from kn_attrib.cli import known, options, screen
from kn_attrib.display import counted, first_of
from kn_attrib.errors import FactError
from kn_attrib.facts.description import GivenText, describe_texts
from kn_attrib.facts.encoding import CONVENTIONS
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.facts.prompts import Split
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.store import check_new_file

NAME = "facts"
NONE = "none, so that the fact cannot be judged"


def command(
    context: typer.Context,
    facts: options.Facts = "world",
    relations: options.Relations = "",
    answer_words: options.AnswerWords = 0,
    fact: Annotated[str, typer.Option(help="Show one fact with its texts.")] = "",
    model: Annotated[
        str,
        typer.Option(
            help="Ask this model which facts it knows; one (the first, or --fact) token by token as it is given it."
        ),
    ] = "",
    chat: options.Chat = False,
    out: Annotated[Path | None, typer.Option(help="Write the facts to this .jsonl file.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Write over the file.")] = False,
) -> None:
    """Check a fact set and print its relations, show one fact, or ask a model which facts it knows.

    Example: kn-attrib facts --facts my_facts.jsonl --model zoo:gpt2-facts
    """
    if not model:
        options.refuse(context, "chat", without="--model")
    if fact or model:
        options.refuse(context, "out", "overwrite", beside="--fact" if fact else "--model")
    if out is None:
        options.refuse(context, "overwrite", without="--out")
    else:
        check_new_file(out, overwrite)
    chosen = options.open_facts(facts, relations, answer_words)
    if fact or model:
        some = FactSet((chosen[fact],)) if fact else chosen
        if model:
            opened = options.open_model(model, "float32", "", chat)
            _show_given(opened, some)
            known.show(opened, some)
            _say_unjudged(some)
        else:
            _show(some[0])
        return
    rows = []
    for relation in chosen.relations:
        some = chosen.of(relation)
        answers = {f.answer for f in some}
        counts = [sum(f.is_ambiguous for f in some), sum(f.leaks_answer for f in some)]
        rows.append([relation, len(some), len(answers), *counts, len(some[0].prompts), len(some[0].held_out)])
    columns = ["relation", "facts", "answers", "ambiguous", "answer in subject", "prompts", "held out"]
    title = f"{len(chosen)} facts of {len(chosen.relations)} relations, sha256 {chosen.digest[:12]}"
    relations_found = pd.DataFrame(rows, columns=[column.replace(" ", "_") for column in columns])
    screen.show(rows, columns, title, facts=len(chosen), sha256=chosen.digest, relations=relations_found)
    _say_unjudged(chosen)
    if out is not None:
        chosen.save(out)
        screen.say(f"Facts: {out}", files={"facts": out})


def _say_unjudged(facts: FactSet) -> None:
    """Name the facts that no comparison can judge, whatever the model knows."""
    without = [fact.id for fact in facts if not fact.held_out]
    screen.give(without_held_out=without)
    if without:
        screen.say(
            f"{counted(len(without), 'fact')} without held-out text, which cannot be judged: "
            f"{', '.join(first_of(without))}. Add 'held_out': sentences other than the prompts."
        )


def _title(fact: Fact) -> str:
    right = " | ".join([fact.answer, *fact.alternatives])
    return f"{fact.id}: {fact.subject} → {right}"


def _show(fact: Fact) -> None:
    """Print a fact with its texts."""
    screen.say(_title(fact), fact=fact)
    for name in ("prompts", "held_out"):
        texts = "\n".join(f"    {text}" for text in getattr(fact, name))
        screen.say(f"{name}:\n{texts}" if texts else f"{name}: {NONE}")


def _show_given(model: NeuronModel, facts: FactSet) -> None:
    """Print the first fact that can be put to a model (of one fact alone: that one), token by token."""
    for fact in facts:
        texts = describe_texts(model.encoder, fact)
        if len(facts) == 1 or any(text.skipped is None and text.split == "prompts" for text in texts):
            return _show_texts(model, fact, texts)
    hint = "kn-attrib facts --fact ID with the same --model says why"
    raise FactError(f"none of the {len(facts)} facts has a prompt that can be put to {model.name}; {hint}.")


def _show_texts(model: NeuronModel, fact: Fact, texts: Sequence[GivenText]) -> None:
    screen.say(_title(fact), fact=fact)
    convention = model.encoder.convention
    asked = f"{model.name}, {model.kind}, asked by {convention!r}: {CONVENTIONS[convention]}"
    screen.say(asked, model=model.name, kind=model.kind, convention=convention, texts=texts)
    for split in get_args(Split):
        screen.say(f"{split}:" if getattr(fact, split) else f"{split}: {NONE}")
        for text in texts:
            if text.split == split:
                screen.say("\n".join(_lines(text)))


def _lines(text: GivenText) -> list[str]:
    """A text, what is given, and what is asked for."""
    lines = [f"    {text.text!r}"]
    if text.skipped is not None:
        return [*lines, f"        left out ({text.skipped.cause}): {text.skipped.reason}"]
    if text.source:
        lines.append("        encoder: " + " ".join(map(str, text.source)))
    lines.append(("        decoder: " if text.source else "        given:   ") + " ".join(map(str, text.tokens)))
    # Tokens that were answered before are given too: they are part of what stands at a later position.
    given = [*text.tokens, *text.answer]
    lines += [
        f"        answer:  {token} (id {token.id}), predicted at token {position}, {given[position]}"
        for token, position in zip(text.answer, text.positions, strict=True)
    ]
    return lines
