"""Prompts whose subject is corrupted: Gaussian or uniform noise on its embeddings, or another subject in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from kn_attrib.errors import PromptError
from kn_attrib.facts.facts import SLOT, Fact
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import torch_generator

Corruption = Literal["gaussian", "uniform", "replace"]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)


def only_subject_span(model: NeuronModel, prompt: Prompt) -> tuple[int, int]:
    """First and last + 1 of the subject's tokens, where the subject stands once.

    Raises
    ------
    PromptError : the model does not read it word for word, or reads it twice: the other one would tell the answer.
    """
    fact, read = prompt.fact, prompt.text
    if model.kind == "causal":
        read = read.split(SLOT)[0]
    span = model.encoder.subject_span(prompt)
    if span is None:
        raise PromptError(
            f"the subject {fact.subject!r} of fact {fact.id!r} is not in what the model reads of {prompt.text!r}; "
            "tracing corrupts the subject, so it needs a text that holds it, word for word.",
            cause="no subject",
        )
    times = read.count(fact.subject)
    if times > 1:
        raise PromptError(
            f"the subject {fact.subject!r} of fact {fact.id!r} stands {times} times in {prompt.text!r}; tracing "
            "corrupts one and the other would still tell the answer. Rephrase the text so that it stands there once.",
            cause="subject twice",
        )
    return span


def subject_deviation(model: NeuronModel, prompts: Sequence[Prompt]) -> float:
    """Standard deviation of all values of the embeddings of the prompts' subjects.

    Reference
    ---------
    Meng et al. 2022, arXiv 2202.05262: the noise is three times this.
    """
    vectors = []
    for prompt in prompts:
        start, end = only_subject_span(model, prompt)
        vectors.append(model.embed(Batch((prompt,), model.device))[0, start:end])
    return float(torch.cat(vectors).double().std())


def with_noisy_subject(
    model: NeuronModel, prompt: Prompt, corruption: Corruption, size: float, samples: int, seed: int
) -> Tensor:
    """Embeddings of a prompt with noise on its subject: ``[sample, token, hidden]``.

    Parameters
    ----------
    corruption : ``"gaussian"``, of standard deviation ``size``; or ``"uniform"``, from ``−size`` to ``size``.
    seed : with the fact and the text it makes the noise: the tokens of an answer are asked for under the same.
    """
    start, end = only_subject_span(model, prompt)
    vectors = model.embed(Batch((prompt,), model.device)).repeat(samples, 1, 1)
    shape = (samples, end - start, vectors.shape[-1])
    generator = torch_generator(seed, "subject", prompt.fact.id, prompt.text)
    if corruption == "gaussian":
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    else:
        noise = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
    vectors[:, start:end] += (size * noise).to(vectors)
    return vectors


def with_other_subjects(model: NeuronModel, prompt: Prompt, others: Sequence[Fact], samples: int, seed: int) -> Tensor:
    """Embeddings of a prompt with other subjects in the place of its own: ``[sample, token, hidden]``.

    A subject serves if its fact has another answer and its tokens are as many: the text with it differs from the prompt
    in the subject's tokens alone. Of those that serve, at most ``samples`` are drawn.

    Raises
    ------
    PromptError : there is none.
    """
    start, end = only_subject_span(model, prompt)
    right = {prompt.fact.answer, *prompt.fact.alternatives}
    texts = []
    for other in sorted({each.subject for each in others if not right & {each.answer, *each.alternatives}}):
        ids = _ids_with(model, prompt, other)
        own = prompt.input_ids
        if ids is not None and len(ids) == len(own) and ids[:start] + ids[end:] == own[:start] + own[end:]:
            texts.append(replace(prompt, input_ids=ids))
    if not texts:
        raise PromptError(
            f"no other subject of relation {prompt.fact.relation!r} has another answer and the {end - start} tokens of "
            f"{prompt.fact.subject!r} in {prompt.text!r}; add facts, or corrupt with noise.",
            cause="no other subject of as many tokens",
        )
    generator = torch_generator(seed, "subject", prompt.fact.id, prompt.text)
    drawn = torch.randperm(len(texts), generator=generator)[:samples].tolist()
    return model.embed(Batch(tuple(texts[number] for number in drawn), model.device))


def _ids_with(model: NeuronModel, prompt: Prompt, subject: str) -> tuple[int, ...] | None:
    """The prompt's ids with another subject; None where that text cannot be put to the model."""
    text = prompt.text.replace(prompt.fact.subject, subject)
    try:
        return model.encoder.encode(replace(prompt.fact, subject=subject), text)[prompt.token].input_ids
    except PromptError:
        return None
