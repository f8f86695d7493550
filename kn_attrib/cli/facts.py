"""``kn-attrib facts``: what a fact set holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kn_attrib.cli import options, screen
from kn_attrib.errors import StoreError

NAME = "facts"


def command(
    facts: options.Facts = "world",
    relations: options.Relations = "",
    answer_words: options.AnswerWords = 0,
    fact: Annotated[str, typer.Option(help="Show one fact with its texts.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write the facts to this .jsonl file.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Write over the file.")] = False,
) -> None:
    """Check a fact set and print its relations.

    Example: kn-attrib facts --facts my_facts.jsonl
    """
    chosen = options.open_facts(facts, relations, answer_words)
    if fact:
        one = chosen[fact]
        right = " | ".join([one.answer, *one.alternatives])
        typer.echo(f"{one.id}: {one.subject} → {right}")
        for name in ("prompts", "held_out"):
            texts = "\n".join(f"    {text}" for text in getattr(one, name))
            typer.echo(f"{name}:\n{texts}")
        return
    rows = []
    for relation in chosen.relations:
        some = chosen.of(relation)
        answers = {f.answer for f in some}
        counts = [sum(f.is_ambiguous for f in some), sum(f.leaks_answer for f in some)]
        rows.append([relation, len(some), len(answers), *counts, len(some[0].prompts), len(some[0].held_out)])
    columns = ["relation", "facts", "answers", "ambiguous", "answer in subject", "prompts", "held out"]
    screen.show(rows, columns, f"{len(chosen)} facts of {len(chosen.relations)} relations, sha256 {chosen.digest[:12]}")
    if out is not None:
        if out.exists() and not overwrite:
            raise StoreError(f"{out} exists; choose another --out file, or say --overwrite.")
        chosen.save(out)
        typer.echo(f"Facts: {out}")
