"""Prompts whose subject is made unreadable by noise on its embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kn_attrib.errors import MethodError
from kn_attrib.facts.prompts import Batch
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import torch_generator


@dataclass(frozen=True)
class EmbeddedBatch(Batch):
    """Queries that the model is given as embeddings.

    Parameters
    ----------
    embeddings : ``[prompt, token, hidden]``, in place of the token ids (encoder-decoders: of what the encoder reads).
    """

    embeddings: Tensor = field(default_factory=lambda: torch.empty(0))

    def inputs(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Inputs of `NeuronModel.logits`: all prompts, or those of ``rows``."""
        if self.sources is None:
            given = {"inputs_embeds": self.embeddings}
        else:
            given = {"input_ids": self.input_ids, "source_embeds": self.embeddings}
        return given if rows is None else {name: values[rows] for name, values in given.items()}


def subject_spans(model: NeuronModel, batch: Batch) -> list[tuple[int, int]]:
    """First and last + 1 of the subject's tokens in what the model (an encoder-decoder's encoder) reads.

    Raises
    ------
    MethodError : a text does not hold its subject word for word before the point where the model stops reading.
    """
    spans = []
    for prompt in batch.prompts:
        span = model.encoder.subject_span(prompt)
        if span is None:
            raise MethodError(
                f"the subject {prompt.fact.subject!r} of fact {prompt.fact.id!r} is not in what the model reads of "
                f"{prompt.text!r}; a method that corrupts the subject needs texts that hold it, word for word."
            )
        spans.append(span)
    return spans


def with_noise(
    model: NeuronModel, batch: Batch, spans: Sequence[tuple[int, int]], sigma: float, *key: object
) -> EmbeddedBatch:
    """The batch with Gaussian noise on the embeddings of its subjects.

    Parameters
    ----------
    spans : from `subject_spans`.
    sigma : the noise's standard deviation, in standard deviations of the embedding matrix.
    key : what the draw depends on, beside the fact and the text: an answer's tokens are asked for under the same noise.
    """
    stack: Any = model.model.get_encoder() if model.kind == "encoder-decoder" else model.model
    sources = batch.sources
    ids = batch.input_ids if sources is None else sources
    with torch.no_grad():
        embedding: nn.Module = stack.get_input_embeddings()
        vectors = embedding(ids).clone()
        deviation = sigma * _deviation(embedding, ids, vectors)
    for row, (prompt, (start, end)) in enumerate(zip(batch.prompts, spans, strict=True)):
        generator = torch_generator(*key, prompt.fact.id, prompt.text)
        noise = torch.randn(end - start, vectors.shape[-1], generator=generator, dtype=torch.float64)
        vectors[row, start:end] += deviation * noise.to(vectors)
    return EmbeddedBatch(batch.prompts, batch.device, vectors)


def _deviation(embedding: Any, ids: Tensor, vectors: Tensor) -> float:
    """Standard deviation of the embedding matrix, as the model reads it: some families scale what they look up."""
    weight = embedding.weight
    scale = vectors.norm(dtype=torch.float64) / weight[ids].norm(dtype=torch.float64)
    return float(weight.std()) * float(scale)
