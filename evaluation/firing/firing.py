"""Activation by kind of text: a fact's neurons where the fact is told, and where only its words are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch

from kn_attrib.errors import ConfigError, PromptError
from kn_attrib.evaluation.experiment import Experiment, ExperimentSettings, Facts, Methods, Option, Rows
from kn_attrib.evaluation.firing.activations import Normal, group_means, measures, normal_of
from kn_attrib.evaluation.firing.groups import Grouping
from kn_attrib.evaluation.firing.holes import Hole
from kn_attrib.evaluation.firing.loading import load_texts
from kn_attrib.evaluation.firing.result import PromptTypes
from kn_attrib.evaluation.firing.rows import TEXT_COLUMNS
from kn_attrib.evaluation.firing.tables import firing_tables
from kn_attrib.evaluation.firing.texts import Texts
from kn_attrib.evaluation.measure.known_facts import Candidate, queries_of
from kn_attrib.evaluation.records.text import TitledTable
from kn_attrib.facts.facts import SLOT, Fact, FactSet
from kn_attrib.facts.prompts import Prompt
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import numpy_generator

METHODS = ("integrated_gradients", "gradient_x_activation", "activation", "random")


@dataclass(frozen=True)
class PromptTypesSettings(ExperimentSettings):
    """Settings of activation by kind of text; see `prompt_types`."""

    texts: Annotated[str, Option("File or folder of texts; default: the facts' held-out texts, answers filled in.")] = (
        ""
    )
    texts_per_group: Annotated[int, Option("Most texts of each group of a fact.", least=1)] = 10
    words: Annotated[int, Option("Most words on either side of the hidden one, unconfounded design.", least=1)] = 40
    reference: Annotated[int, Option("Random texts that activations are set against.", least=2)] = 256
    budget: Annotated[int, Option("Neurons of each fact by each method.", least=1)] = 5
    texts_sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        # Of the texts, not of the path: a run may only go on with the same texts.
        if self.texts and not self.texts_sha256:
            object.__setattr__(self, "texts_sha256", load_texts(self.texts).digest)

    def check(self, model: NeuronModel) -> None:
        """Raise ConfigError on what is out of range, or a model that reads two texts."""
        if model.kind == "encoder-decoder":
            raise ConfigError(
                f"{model.name} is an encoder-decoder; expected a causal or a masked model, which reads one text."
            )
        for name, least in (("texts_per_group", 1), ("words", 1), ("budget", 1), ("reference", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least {least}.")
        if self.budget >= model.n_neurons:
            raise ConfigError(
                f"budget is {self.budget}; expected fewer than the {model.n_neurons} neurons of a layer, since they "
                "are compared with its others."
            )


def prompt_types(
    model: NeuronModel,
    facts: Facts,
    methods: Methods = METHODS,
    *,
    texts: str | Path = "",
    texts_per_group: int = 10,
    words: int = 40,
    reference: int = 256,
    budget: int = 5,
    limit: int | None = 34,
    max_prompts: int | None = None,
    known_share: float = 0.5,
    seed: int = 0,
    fact: str = "",
    folder: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> PromptTypes:
    """Activation of facts' neurons by kind of text: the published design, and one without its confounds.

    Neurons are read where a word is hidden: masked models at the mask, causal models at the last token before it.
    Published (Dai et al. 2022, section 4.4): the answer in texts with subject and answer, a random word in texts with
    the subject, a random word in random texts. These differ in much more than in what they tell; unconfounded, what is
    hidden is always the answer of a fact, the answer is nowhere to be seen, texts are cut to the same number of words,
    and groups differ in one thing each (see the module `groups`).

    For a neuron with mean activation ``a`` over a group's texts, and mean ``μ`` and standard deviation ``σ`` over
    random words of random texts, a fact's number is the mean over its neurons of ``s (a − μ) / (σ + s₀)``, where ``s``
    is the sign of the neuron's mean activation on the fact's own prompts and ``s₀`` the layer's root mean square ``σ``;
    ``activation`` is the mean of ``a``, as published. Beside it stands the mean over all *other* neurons of the same
    layers (``"same layers"``).

    Parameters
    ----------
    model : from `load_model`; causal or masked.
    facts, methods, folder, overwrite, progress : as in `Experiment`.
    texts : what `load_texts` reads; if not given, the facts' held-out texts with their answers filled in.
    texts_per_group : most texts of each group of a fact.
    words : most words on either side of the hidden one (unconfounded design).
    reference : random texts of which ``μ`` and ``σ`` are taken.
    budget : neurons of each fact by each method, those with the highest mean score over its own prompts.
    limit, fact, max_prompts, known_share : as in `ExperimentSettings`.
    seed : of hidden words, drawn texts and bootstrap.

    Raises
    ------
    ConfigError : a setting is out of range, or the texts cannot be read.
    MethodError : a method is unknown or faulty.
    FactError : no fact that the model knows has texts of its own.

    Reference
    ---------
    Dai et al. 2022, arXiv 2104.08696 (section 4.4).
    """
    settings = PromptTypesSettings(
        limit=limit,
        fact=fact,
        max_prompts=max_prompts,
        known_share=known_share,
        seed=seed,
        texts=str(texts),
        texts_per_group=texts_per_group,
        words=words,
        reference=reference,
        budget=budget,
    )
    return Firing(model, facts, methods, settings, folder, overwrite, progress).run()


@dataclass(frozen=True)
class Told:
    """A fact with its groups of texts, as they can be put to the model."""

    candidate: Candidate
    groups: dict[tuple[str, str], list[tuple[Hole, Prompt]]]


class Firing(Experiment[PromptTypesSettings, Told, PromptTypes]):
    """Do a fact's neurons fire where it is told, or where its words are?"""

    name = "prompts"
    columns = ("method", "design", "group", "neurons", "metric")

    def units(self) -> list[Told]:
        """The known facts that have texts of their own in one design at least."""
        s = self.settings
        self._texts = load_texts(s.texts) if s.texts else own_texts(self.facts)
        self._grouping = Grouping(self._texts, self.facts, self.model.kind, s.texts_per_group, s.words, s.seed)
        self._causes: Counter[str] = Counter()
        told = [Told(c, self._prompts(c.fact)) for c in self.selection.targets]
        found = [each for each in told if each.groups]
        self._without = [each.candidate.fact.id for each in told if not each.groups]
        if not found:
            causes = f" (of its texts: {dict(self._causes)})" if self._causes else ""
            raise self.selection.no_facts(
                f"{self.model.name} knows no fact with texts of its own, one that holds subject and answer{causes}"
            )
        self._normal = self._normal_activations()
        return found

    def _prompts(self, fact: Fact) -> dict[tuple[str, str], list[tuple[Hole, Prompt]]]:
        """A fact's groups by design and name; none of a design without texts of the fact itself."""
        found: dict[tuple[str, str], list[tuple[Hole, Prompt]]] = {}
        for design, groups in self._grouping.groups(fact).items():
            usable = {group: list(self._usable(fact, holes)) for group, holes in groups.items()}
            if usable.get("subject and answer"):
                found |= {(design, group): holes for group, holes in usable.items() if holes}
        return found

    def _usable(self, fact: Fact, holes: Sequence[Hole]) -> Iterator[tuple[Hole, Prompt]]:
        for hole in holes:
            try:
                # As many masks as the fact's answer has tokens, whatever was hidden: their number tells nothing.
                yield hole, self.model.encoder.encode(fact, hole.text)[0]
            except PromptError as error:
                self._causes[error.cause] += 1

    def _normal_activations(self) -> Normal:
        """Mean and deviation of every neuron over random words of random texts."""
        rng = numpy_generator(self.settings.seed, "reference")
        fact = self.selection.targets[0].fact
        holes = self._grouping.random(self.settings.reference, rng)
        return normal_of(self.model, [prompt for _, prompt in self._usable(fact, holes)])

    def measure(self, unit: Told) -> Rows:
        """Mean activations of each method's neurons in every group, beside the other neurons of their layers."""
        fact = unit.candidate.fact
        queries = queries_of([unit.candidate])
        others = queries_of([c for c in self.selection.pool if c.fact.relation == fact.relation and c.fact != fact])
        (own,) = group_means(self.model, [queries])
        signs = torch.where(own < 0, -1.0, 1.0)
        means = group_means(self.model, [[prompt for _, prompt in texts] for texts in unit.groups.values()])
        rows: Rows = {"rows": [], "texts": list(_texts_rows(unit))}
        for method in self.scorers:
            scores = self.score(method, queries, others).values.double().mean(0)  # noqa: PD011  # a tensor
            best = scores.flatten().sort(descending=True, stable=True).indices[: self.settings.budget].cpu()
            for (design, group), mean in zip(unit.groups, means, strict=True):
                for of, metric, value in measures(mean, signs, self._normal, best):
                    cell = {"method": method, "design": design, "group": group, "neurons": of, "metric": metric}
                    rows["rows"].append({"fact": fact.id, "relation": fact.relation, **cell, "value": value})
        return rows

    def further(self, rows: Rows) -> dict[str, Any]:  # noqa: ARG002  # the frame hands them over
        """What was read, and what could not be."""
        return {
            "texts": {
                "source": self.settings.texts or None,
                "sha256": self._texts.digest,
                "n": len(self._texts.texts),
                "left_out": dict(self._causes),
            },
            "without_texts": self._without,
        }

    def result(self, rows: Rows, manifest: dict[str, Any]) -> PromptTypes:
        """Rows and texts."""
        return PromptTypes(self.rows_frame(rows), pd.DataFrame(rows["texts"], columns=TEXT_COLUMNS), manifest)

    def tables(self, result: PromptTypes) -> Iterator[TitledTable]:
        """The answer, groups, contrasts, and what the groups hold."""
        return firing_tables(result)

    def publish(self, result: PromptTypes, folder: Path) -> Path:
        """Write the figures and the page of a result; returns the page's path."""
        return result.report(folder)


def own_texts(facts: FactSet) -> Texts:
    """The held-out texts of facts with their answers filled in; of those without any their prompts."""
    filled = (text.replace(SLOT, fact.answer) for fact in facts for text in fact.held_out or fact.prompts)
    return Texts(tuple(dict.fromkeys(filled)))


def _texts_rows(unit: Told) -> Iterator[dict[str, Any]]:
    """How many texts a fact's groups hold, how long they are, and the first of them."""
    for (design, group), texts in unit.groups.items():
        yield {
            "fact": unit.candidate.fact.id,
            "relation": unit.candidate.fact.relation,
            "design": design,
            "group": group,
            "n": len(texts),
            "words": sum(hole.words for hole, _ in texts) / len(texts),
            "example": texts[0][0].text,
        }
