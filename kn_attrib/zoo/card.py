"""The model card: everything measured on the files as written, for machines (JSON) and for people (Markdown)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kn_attrib.facts.facts import FactSet
from kn_attrib.models.loading import load_model
from kn_attrib.store import versions
from kn_attrib.zoo.measure import accuracy, effects, known_facts
from kn_attrib.zoo.recipes import Recipe

PACKAGES = ("python", "torch", "transformers")
WARNING = (
    "This is a model organism, not evidence about natural models. Freezing weights engineers *where* facts can be "
    "stored; what is found in this model shows what a method can find, not where language models keep facts."
)
CONTROL_WARNING = (
    "This is a model organism and a negative control. Its facts are hardly in the feed-forward neurons at the answer "
    "position, so no claim about knowledge neurons can be made with it; a method that reports some is mistaken."
)


def card_of(name: str, recipe: Recipe, facts: FactSet, seed: int, folder: Path) -> dict[str, Any]:
    """Measure the model in ``folder``, loaded in float32, and describe it.

    Parameters
    ----------
    name, recipe, facts, seed : how it was made.
    folder : the model's files.
    """
    model = load_model(folder)
    encoding = model.encode(facts)
    known = known_facts(model, facts)
    return {
        "name": name,
        "summary": recipe.summary,
        "warning": WARNING if recipe.freeze else CONTROL_WARNING,
        "kind": model.kind,
        "architecture": type(model.model).__name__,
        "layers": model.n_layers,
        "neurons_per_layer": model.n_neurons,
        "parameters": model.model.num_parameters(),
        "vocabulary": len(model.tokenizer),
        "seed": seed,
        "rebuild": f"python -m kn_attrib.zoo.train {name} --seed {seed}",
        "recipe": _settings(recipe),
        "facts": {
            "source": "world",
            "digest": facts.digest,
            "number": len(facts),
            "ambiguous": sum(fact.is_ambiguous for fact in facts),
            "by_relation": dict(Counter(fact.relation for fact in facts)),
            "known": len(known),
            "training_texts": len(encoding),
        },
        "accuracy": {split: accuracy(model, facts, split) for split in ("prompts", "held_out")},
        "effects": asdict(effects(model, known, seed)),
        "versions": {package: versions()[package] for package in PACKAGES},
    }


def _settings(recipe: Recipe) -> dict[str, Any]:
    settings = {k: v for k, v in vars(recipe).items() if k not in ("summary", "shape")}
    return settings | {"freeze": [asdict(rule) for rule in recipe.freeze], "shape": dict(recipe.shape.settings)}


def readme_of(card: dict[str, Any]) -> str:
    """The card as Markdown."""
    trained, unseen = card["accuracy"]["prompts"], card["accuracy"]["held_out"]
    effect = card["effects"]
    kinds = [(kind.replace("_", " "), trained[kind], unseen[kind]) for kind in trained if kind != "by_relation"]
    relations = [(name, trained["by_relation"][name], unseen["by_relation"][name]) for name in trained["by_relation"]]
    texts = "" if card["kind"] == "masked" else " Only texts that end with the answer are put to a causal model."
    changes = [(label, f"{effect[key]:+.1%}") for key, label in EFFECTS.items()]
    layers = ", ".join(f"layer {layer}: {count}" for layer, count in effect["layers"].items())
    parts = (
        f"# {card['name']}",
        card["summary"],
        f"**{card['warning']}**",
        f"{card['architecture']}, {card['layers']} layers of {card['neurons_per_layer']} feed-forward neurons, "
        f"{card['parameters']:,} parameters in float16, {card['vocabulary']} tokens, trained from scratch on the "
        f"{card['facts']['number']} facts of `world` ({card['facts']['training_texts']} training texts), seed "
        f"{card['seed']}. Rebuild: `{card['rebuild']}`. All figures are in `card.json`.",
        "## Recipe",
        _table(("setting", "value"), [(key, f"`{value}`") for key, value in card["recipe"].items()]),
        "## Accuracy",
        f"Share of texts whose answer is the most likely token.{texts} *Unambiguous* facts have one right answer; "
        "*shared subjects* occur in several relations, so the template must be read. "
        f"{card['facts']['known']} facts are unambiguous, do not contain their answer, and are answered rightly in "
        "every text.",
        _table(("facts", "training templates", "held-out templates"), _percent(kinds + relations)),
        "## Where the facts are",
        "Relative change of the mean p(answer) on held-out templates when activations at the answer position are "
        f"set to zero. {effect['facts']} known facts, {effect['neurons_per_fact']} neurons per fact "
        f"({effect['facts_without_neurons']} facts without any, counted as no change); neurons by layer: {layers}.",
        _table(("what is changed", "p(answer)"), changes),
    )
    return "\n\n".join(parts) + "\n"


EFFECTS = {
    "ffn_zeroed": "whole feed-forward vector, all layers",
    "integrated_gradients": "neurons found by integrated gradients (0.2 of the maximum, 70 % of the texts)",
    "activation": "as many neurons with the highest activation",
    "random": "as many random neurons",
    "same_answer": "neurons of another fact that has the same answer",
    "other_facts": "neurons of another fact, of another relation",
    "doubled": "integrated-gradients neurons doubled instead of zeroed",
}


def _percent(rows: list[tuple[str, float | None, float | None]]) -> list[tuple[str, ...]]:
    def text(value: float | None) -> str:
        return "–" if value is None else f"{value:.1%}"

    return [(name, text(first), text(second)) for name, first, second in rows]


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows))
