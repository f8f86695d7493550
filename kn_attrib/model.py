"""A Hugging Face language model seen as layers of feed-forward neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kn_attrib.architectures import find_sites, value_matrix
from kn_attrib.compute import Compute
from kn_attrib.errors import NeuronError, PromptError
from kn_attrib.facts import Fact
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.prompts import Batch, Encoding, Kind, Prompt, PromptEncoder, Split, batches

Objective = Literal["prob", "logprob", "logit", "logodds"]
Edit = Callable[[Tensor], Tensor]
"""Maps a layer's neuron vectors ``[row, token, neuron]`` to edited ones."""


@dataclass(frozen=True)
class Answer:
    """What the model says at the answer position, one entry per prompt.

    Attributes
    ----------
    logprob : natural log of the gold answer's probability.
    rank : 1 when the gold answer is the most likely token.
    top : id of the most likely token.
    """

    logprob: Tensor
    rank: Tensor
    top: Tensor


class NeuronModel:
    """A language model whose feed-forward neurons can be read, replaced and followed.

    A *neuron* ``(l, i)`` is coordinate ``i`` of the vector entering the output linear of layer ``l``'s feed-forward
    block. Made by `load_model`. The wrapped model is never changed: parameters are frozen and dropout is off only
    while kn_attrib runs it.

    Parameters
    ----------
    model, tokenizer : a Hugging Face model with a masked or causal language-model head, and its tokenizer.
    kind : ``"masked"`` or ``"causal"``.
    name : how the model is called in results.
    compute : how the model is run.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        kind: Kind,
        name: str,
        compute: Compute | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.kind: Kind = kind
        self.name = name
        self.sites: list[nn.Module] = find_sites(model)
        self.encoder = PromptEncoder(tokenizer, kind)
        self.compute = compute or Compute()
        self._positions: Tensor | None = None

    def __repr__(self) -> str:
        return (
            f"NeuronModel({self.name!r}, {type(self.model).__name__}, {self.n_layers} layers × "
            f"{self.n_neurons} neurons, {self.dtype_name}, {self.device})"
        )

    @property
    def n_layers(self) -> int:
        return len(self.sites)

    @property
    def n_neurons(self) -> int:
        """Neurons in each layer."""
        return int(value_matrix(self.sites[0]).shape[0])

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def dtype_name(self) -> str:
        """``"float32"`` and the like."""
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights (name, shape, bytes), for provenance."""
        from kn_attrib.loading import digest_of

        return digest_of(self.model)

    def value_vectors(self, layer: int) -> Tensor:
        """What each neuron of a layer writes to the residual stream per unit of activation: ``[neuron, hidden]``.

        Raises
        ------
        NeuronError : the model has no such layer.
        """
        if not 0 <= layer < self.n_layers:
            raise NeuronError(f"layer {layer} does not exist; {self.name} has layers 0 to {self.n_layers - 1}.")
        return value_matrix(self.sites[layer]).detach()

    def value_norms(self) -> Tensor:
        """Euclidean norms of the value vectors: ``[layer, neuron]``."""
        return torch.stack([self.value_vectors(layer).norm(dim=-1) for layer in range(self.n_layers)])

    def check(self, neurons: NeuronSet) -> NeuronSet:
        """Return ``neurons`` if all exist in this model.

        Raises
        ------
        NeuronError : a neuron lies outside the model.
        """
        for neuron in neurons:
            if neuron.layer >= self.n_layers or neuron.index >= self.n_neurons:
                raise NeuronError(
                    f"{neuron} does not exist; {self.name} has {self.n_layers} layers × {self.n_neurons} neurons."
                )
        return neurons

    def all_neurons(self) -> NeuronSet:
        """Every neuron of the model."""
        return NeuronSet(Neuron(layer, i) for layer in range(self.n_layers) for i in range(self.n_neurons))

    # -- prompts -------------------------------------------------------------------------------------------------

    def encode(self, facts: Fact | Sequence[Fact], split: Split = "prompts") -> Encoding:
        """Encode the texts of facts; texts that cannot be put to this model are listed in ``skipped``.

        Raises
        ------
        PromptError : no text at all can be used (the first reason is quoted).
        """
        encoding = self.encoder.encode_all([facts] if isinstance(facts, Fact) else facts, split)
        if not encoding.prompts:
            raise PromptError(encoding.skipped[0].reason if encoding.skipped else f"there are no {split} to encode.")
        return encoding

    def batches(self, prompts: Sequence[Prompt], max_prompts: int = 64) -> Iterator[tuple[list[int], Batch]]:
        """Group prompts by length on this model's device; yields indices into ``prompts`` and their batch."""
        return batches(prompts, self.device, max_prompts)

    # -- running the model ---------------------------------------------------------------------------------------

    @contextmanager
    def edited(self, edits: dict[int, Edit]) -> Iterator[None]:
        """While active, each given layer's neuron vectors pass through its edit; undone on any exit.

        Parameters
        ----------
        edits : layer -> function of the vectors ``[row, token, neuron]``; it may ask for `positions`.
        """
        with ExitStack() as stack:
            for layer, edit in edits.items():
                stack.callback(self.sites[layer].register_forward_pre_hook(_hook(edit)).remove)
            yield

    @property
    def positions(self) -> Tensor:
        """Answer position of each row of the pass that is running: ``[row]``.

        Raises
        ------
        PromptError : no pass through this NeuronModel is running.
        """
        if self._positions is None:
            raise PromptError(
                "an intervention at the answer position needs a run through NeuronModel (answer_probability, record, "
                "answers, …); the bare Hugging Face model does not say where its answer is. Use positions='all' there."
            )
        return self._positions

    def at_answer(self, vectors: Tensor) -> Tensor:
        """``[row, token, neuron]`` -> ``[row, neuron]`` at the answer positions of the pass that is running."""
        return vectors[torch.arange(len(vectors), device=vectors.device), self.positions]

    @contextmanager
    def running(self, positions: Tensor) -> Iterator[None]:
        """While active the model is in eval mode, its weights are frozen and hooks know the answer positions."""
        training = [module for module in self.model.modules() if module.training]
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        outer, self._positions = self._positions, positions
        for module in training:
            module.training = False
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            self._positions = outer
            for parameter in trainable:
                parameter.requires_grad_(True)
            for module in training:
                module.training = True

    def logits(self, positions: Tensor, **inputs: Tensor) -> Tensor:
        """Logits at the answer positions, in at least float32.

        Parameters
        ----------
        positions : ``[row]``.
        inputs : ``input_ids [row, token]`` or ``inputs_embeds [row, token, hidden]``.

        Returns
        -------
        ``[row, vocabulary]``
        """
        size = next(iter(inputs.values())).shape[:2]
        mask = torch.ones(size, dtype=torch.long, device=self.device)
        with self.running(positions):
            output = self.model(**inputs, attention_mask=mask)
        rows = torch.arange(len(positions), device=self.device)
        chosen: Tensor = output.logits[rows, positions]
        return chosen if chosen.dtype == torch.float64 else chosen.float()

    def embed(self, batch: Batch) -> Tensor:
        """Token embeddings of a batch, a leaf that gradients can be taken for: ``[prompt, token, hidden]``."""
        embedding = self.model.get_input_embeddings()
        with torch.no_grad():
            vectors: Tensor = embedding(batch.input_ids)
        return vectors

    def record(self, batch: Batch) -> Tensor:
        """Neuron activations at the answer position: ``[prompt, layer, neuron]``."""
        recorded: dict[int, Tensor] = {}

        def keep(layer: int) -> Edit:
            def edit(vectors: Tensor) -> Tensor:
                recorded[layer] = self.at_answer(vectors).detach()
                return vectors

            return edit

        with torch.no_grad(), self.edited({layer: keep(layer) for layer in range(self.n_layers)}):
            self.logits(batch.positions, input_ids=batch.input_ids)
        return torch.stack([recorded[layer] for layer in range(self.n_layers)], dim=1)

    def answers(self, batch: Batch) -> Answer:
        """The model's answers at the answer position, under whatever interventions are active."""
        with torch.no_grad():
            logprobs = self.logits(batch.positions, input_ids=batch.input_ids).log_softmax(-1)
        gold = logprobs.gather(1, batch.answers[:, None])
        return Answer(gold[:, 0], (logprobs > gold).sum(-1) + 1, logprobs.argmax(-1))

    def answer_probability(self, fact: Fact, split: Split = "prompts") -> Tensor:
        """Probability of the gold answer in each usable text of a fact: ``[prompt]``.

        Raises
        ------
        PromptError : no text of the fact can be put to this model.
        """
        prompts = self.encode(fact, split).prompts
        result = torch.empty(len(prompts), dtype=torch.promote_types(self.dtype, torch.float32))
        for indices, batch in self.batches(prompts):
            result[indices] = self.answers(batch).logprob.exp().cpu()
        return result


def _hook(edit: Edit) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        vectors, *rest = inputs
        return (edit(vectors), *rest)

    return hook


def objective_value(logits: Tensor, answers: Tensor, objective: Objective) -> Tensor:
    """The objective ``F`` of each row.

    ``prob`` is p(answer), ``logprob`` its natural logarithm, ``logit`` the answer's logit, ``logodds`` is
    log p/(1 − p), which stays exact where p is almost 1.

    Parameters
    ----------
    logits : ``[row, vocabulary]``.
    answers : ``[row]``, gold token ids.
    """
    scores = {
        "prob": lambda: logits.softmax(-1),
        "logprob": lambda: logits.log_softmax(-1),
        "logit": lambda: logits,
        "logodds": lambda: logits - logits.scatter(1, answers[:, None], -torch.inf).logsumexp(1, keepdim=True),
    }[objective]()
    return scores.gather(1, answers[:, None])[:, 0]
