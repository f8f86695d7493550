"""Neuron scores: one tensor, and the record of what produced it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from kn_attrib.display import LARGE_SHOWN, counted, html_table, number
from kn_attrib.errors import NeuronError, unknown
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.scoring.saved_scores import read_scores
from kn_attrib.store import atomic_path


@dataclass(frozen=True)
class NeuronScores:
    """Scores of every neuron for every prompt.

    Attributes
    ----------
    values : ``[prompt, layer, neuron]``; larger = more responsible for the answer.
    facts, relations, texts : one entry per prompt.
    method : registered name of the scorer.
    params : its parameters.
    provenance : model, data and versions.
    gap, difference : ``[prompt, layer]`` where the method is complete: Σ score − difference, and the difference.
    error : ``[prompt, layer]``, estimated Euclidean length of the numerical error of a layer's scores, where known.
    capped : ``[prompt, layer]``, whether a layer ran out of nodes before it was as exact as asked.
    tokens : number of answer tokens of each prompt; values, gap, difference and error are means over them.
    token_values : ``[answer token, layer, neuron]``, all prompts' tokens one after the other, if they were kept.
    """

    values: Tensor
    facts: tuple[str, ...]
    relations: tuple[str, ...]
    texts: tuple[str, ...]
    method: str
    params: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    gap: Tensor | None = None
    difference: Tensor | None = None
    tokens: tuple[int, ...] = ()
    token_values: Tensor | None = None
    error: Tensor | None = None
    capped: Tensor | None = None

    def __repr__(self) -> str:
        shape = " × ".join(str(n) for n in self.values.shape)
        return f"NeuronScores({self.method}, {len(self.fact_ids)} facts, prompt × layer × neuron = {shape})"

    def _repr_html_(self) -> str:
        """The highest mean scores, by layer or (several facts) by fact, and completeness gaps, for notebooks."""
        prompts, layers, neurons = self.shape
        size = f"{counted(prompts, 'prompt')} × {counted(layers, 'layer')} × {counted(neurons, 'neuron')}"
        if len(self.fact_ids) == 1:
            shown, header = _top_by_layer(self)
            return html_table(f"{self.method} on {self.facts[0]}: {size}", shown, header, _gap_notes(self))
        rows = [(fact, self.facts.count(fact), _named(self.for_fact(fact), SHOWN_PER_FACT)) for fact in self.fact_ids]
        more = len(rows) - LARGE_SHOWN
        notes = [f"… and {counted(more, 'more fact')}"] if more > 0 else []
        header = ["fact", "prompts", f"highest mean scores ({SHOWN_PER_FACT} neurons)"]
        caption = f"{self.method} on {counted(len(rows), 'fact')}: {size}"
        return html_table(caption, rows[:LARGE_SHOWN], header, notes + _gap_notes(self))

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of prompts, layers and neurons."""
        prompts, layers, neurons = self.values.shape
        return prompts, layers, neurons

    @property
    def fact_ids(self) -> tuple[str, ...]:
        """Distinct fact ids in order of first appearance."""
        return tuple(dict.fromkeys(self.facts))

    def for_fact(self, fact: str) -> NeuronScores:
        """The rows of one fact.

        Raises
        ------
        NeuronError : the fact was not scored.
        """
        if fact not in self.facts:
            raise NeuronError(unknown("fact in these scores", fact, self.fact_ids))
        return self[[i for i, each in enumerate(self.facts) if each == fact]]

    def _token_rows(self, row: int) -> range:
        start = sum(self.tokens[:row])
        return range(start, start + self.tokens[row])

    def of_tokens(self, row: int) -> Tensor:
        """Scores of each answer token of one prompt: ``[answer token, layer, neuron]``.

        Raises
        ------
        NeuronError : they were not kept.
        """
        if self.token_values is None:
            raise NeuronError("scores of single answer tokens were not kept; score with keep_tokens=True.")
        return self.token_values[list(self._token_rows(row))]

    def __getitem__(self, rows: Sequence[int]) -> NeuronScores:
        index = [range(len(self))[i] for i in rows]

        def pick(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in index)

        token_values = self.token_values
        if token_values is not None:
            token_values = token_values[[i for row in index for i in self._token_rows(row)]]
        return NeuronScores(
            values=self.values[index],
            facts=pick(self.facts),
            relations=pick(self.relations),
            texts=pick(self.texts),
            method=self.method,
            params=self.params,
            provenance=self.provenance,
            gap=None if self.gap is None else self.gap[index],
            difference=None if self.difference is None else self.difference[index],
            tokens=pick(self.tokens) if self.tokens else (),
            token_values=token_values,
            error=None if self.error is None else self.error[index],
            capped=None if self.capped is None else self.capped[index],
        )

    def top_k(self, k: int) -> NeuronSet:
        """The ``k`` neurons with the highest score averaged over prompts (ties: the earlier neuron).

        Raises
        ------
        NeuronError : the budget is not between 1 and the number of neurons.
        """
        mean = self.values.double().mean(0)
        _check_budget(k, mean.numel())
        order = mean.flatten().sort(descending=True, stable=True).indices[:k].tolist()
        width = mean.shape[1]
        return NeuronSet(Neuron(*divmod(i, width)) for i in order)

    def to_frame(self, k: int | None = None) -> pd.DataFrame:
        """One row per (prompt, neuron): fact, prompt, layer, neuron, score; with ``k`` only each prompt's top k.

        Raises
        ------
        NeuronError : the budget is not between 1 and the number of neurons.
        """
        flat = self.values.flatten(1).float()
        if k is not None:
            _check_budget(k, flat.shape[1])
        scores, order = flat.sort(dim=1, descending=True, stable=True)
        count = flat.shape[1] if k is None else k
        width = self.values.shape[2]
        top = order[:, :count].flatten()
        frame: pd.DataFrame = pd.DataFrame(
            {
                "fact": [fact for fact in self.facts for _ in range(count)],
                "prompt": [text for text in self.texts for _ in range(count)],
                "layer": (top // width).numpy(),
                "neuron": (top % width).numpy(),
                "score": scores[:, :count].flatten().numpy(),
            }
        )
        return frame

    def save(self, path: str | Path) -> None:
        """Write one ``.safetensors`` file: the tensors, and everything else as JSON in its metadata."""
        record = {name: getattr(self, name) for name in _RECORD}
        tensors = {name: getattr(self, name).contiguous() for name in _TENSORS if getattr(self, name) is not None}
        if self.token_values is not None:
            # Of answers of one token it is the tensor of values itself, and the format takes none twice.
            tensors["token_values"] = tensors["token_values"].clone()
        with atomic_path(Path(path)) as temporary:
            save_file(tensors, temporary, metadata={"kn_attrib": json.dumps(record, ensure_ascii=False)})

    @classmethod
    def load(cls, path: str | Path) -> NeuronScores:
        """Read what `save` wrote.

        Raises
        ------
        StoreError : the file is missing or not such a file.
        """
        return cls(**read_scores(Path(path)))


_TENSORS = ("values", "gap", "difference", "token_values", "error", "capped")
_RECORD = ("facts", "relations", "texts", "method", "params", "provenance", "tokens")

SHOWN_NEURONS = 10
"""Neurons that a notebook shows of the scores of one fact."""
SHOWN_PER_FACT = 3
"""The same for each of several facts."""


def _check_budget(k: int, most: int) -> None:
    if not 1 <= k <= most:
        raise NeuronError(f"budget k = {k}; expected 1 to {most}, the number of neurons of the model.")


def _highest(scores: NeuronScores, k: int) -> list[tuple[Neuron, float]]:
    """The neurons with the highest mean scores, the highest first."""
    mean = scores.values.double().mean(0)  # noqa: PD011  # a tensor
    found = [(neuron, float(mean[neuron])) for neuron in scores.top_k(min(k, mean.numel()))]
    return sorted(found, key=lambda pair: -pair[1])


def _named(scores: NeuronScores, k: int) -> str:
    return ", ".join(f"L{n.layer}:{n.index} ({number(value)})" for n, value in _highest(scores, k))


def _top_by_layer(scores: NeuronScores) -> tuple[list[list[object]], list[str]]:
    """Rows and header: each layer's neurons among the highest, with mean scores, and its mean gap and difference."""
    highest = _highest(scores, SHOWN_NEURONS)
    means = {
        name: tensor.double().mean(0)
        for name, tensor in (("mean completeness gap", scores.gap), ("mean difference", scores.difference))
        if tensor is not None
    }
    rows: list[list[object]] = [
        [
            layer,
            ", ".join(f"{n.index} ({number(value)})" for n, value in highest if n.layer == layer),
            *(number(float(mean[layer])) for mean in means.values()),
        ]
        for layer in sorted({n.layer for n, _ in highest})
    ]
    return rows, ["layer", f"neurons (mean score), the highest {len(highest)} of all layers", *means]


def _gap_notes(scores: NeuronScores) -> list[str]:
    """The largest gap of all prompts and layers, and how many layers ran out of nodes."""
    notes = []
    if scores.gap is not None and scores.gap.numel():
        notes.append(f"Largest completeness gap of any prompt and layer: {number(float(scores.gap.abs().max()))}.")
    if scores.capped is not None and scores.capped.any():
        n = int(scores.capped.sum())
        notes.append(f"{n} of {scores.capped.numel()} prompts' layers ran out of nodes before they were exact enough.")
    return notes


def stack_scores(parts: Sequence[NeuronScores]) -> NeuronScores:
    """Join scores of the same method for different prompts."""

    def join(name: str) -> Tensor | None:
        tensors = [getattr(part, name) for part in parts]
        return None if any(t is None for t in tensors) else torch.cat(tensors)

    first = parts[0]
    values = join("values")
    assert values is not None
    return NeuronScores(
        values=values,
        facts=tuple(fact for part in parts for fact in part.facts),
        relations=tuple(relation for part in parts for relation in part.relations),
        texts=tuple(text for part in parts for text in part.texts),
        method=first.method,
        params=first.params,
        provenance=first.provenance,
        gap=join("gap"),
        difference=join("difference"),
        tokens=tuple(number for part in parts for number in part.tokens),
        token_values=join("token_values"),
        error=join("error"),
        capped=join("capped"),
    )
