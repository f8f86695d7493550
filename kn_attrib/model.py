"""A Hugging Face language model seen as layers of feed-forward neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kn_attrib.architectures import Architecture, find_architecture, value_matrix
from kn_attrib.compute import Compute, Cost, Verdict
from kn_attrib.encoding import PromptEncoder
from kn_attrib.errors import MethodError, NeuronError, PromptError, unknown
from kn_attrib.facts import Fact
from kn_attrib.linears import copied_bytes, fast_linears, linears_of
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.prompts import Batch, Encoding, Kind, Prompt, Split, batches, by_text
from kn_attrib.taps import Taps, answer_only, arguments, at_positions, quiet

Objective = Literal["prob", "logprob", "logit", "logodds"]
Edit = Callable[[Tensor], Tensor]
"""Maps a layer's neuron vectors ``[row, token, neuron]`` to edited ones."""


@dataclass(frozen=True)
class Answer:
    """What the model says at the answer position, one entry per query.

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
    model, tokenizer : a Hugging Face model with a language-model head, and its tokenizer.
    kind : ``"masked"``, ``"causal"`` or ``"encoder-decoder"`` (whose neurons are the decoder's).
    name : how the model is called in results.
    ffn_pattern : path of the feed-forward output linears with ``{i}`` for the layer, if not as the table says.
    compute : how the model is run.

    Attributes
    ----------
    architecture : where the neurons are, and how that is known.
    sites : the feed-forward output linear of each layer.
    verdict, whole_verdict : what the guards of the fast path found, and of its kind for activations at all tokens;
        None before their first use.
    cost : how much the model has been run through this object.
    taps : one module per layer whose input is always its neuron vectors ``[row, token, neuron]``, for hooks of one's
        own (Captum's layer methods take them); they work while the model runs through this object.

    Raises
    ------
    ModelError : the model's feed-forward neurons cannot be found.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        kind: Kind,
        name: str,
        ffn_pattern: str | None = None,
        compute: Compute | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.kind: Kind = kind
        self.name = name
        self._taps = Taps(model, kind, find_architecture(model, ffn_pattern))
        self.architecture: Architecture = self._taps.architecture
        self.sites: list[nn.Module] = self._taps.sites
        self.taps: list[nn.Module] = self._taps.layers
        embedding: Any = model.get_input_embeddings()
        start = model.config.decoder_start_token_id if kind == "encoder-decoder" else None
        self.encoder = PromptEncoder(tokenizer, kind, start, embedding.weight.shape[0])
        self.compute = compute or Compute()
        self.cost = Cost()
        self.verdict: Verdict | None = None
        self.whole_verdict: Verdict | None = None
        self._linears = linears_of(model)
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

    @property
    def row_budget(self) -> int:
        """Bytes that rows may take: the memory budget less copies of weights, but at least a quarter of it."""
        budget = self.compute.budget(self.device)
        return max(budget - copied_bytes(self._linears), budget // 4)

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
        layers, width = self.n_layers, self.n_neurons
        for neuron in neurons:
            if neuron.layer >= layers or neuron.index >= width:
                raise NeuronError(f"{neuron} does not exist; {self.name} has {layers} layers × {width} neurons.")
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
        with self._taps.edited(edits):
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
        outer, self._positions = self._positions, positions
        try:
            with quiet(self.model), fast_linears(self._linears), self._taps.attached():
                yield
        finally:
            self._positions = outer

    def logits(self, positions: Tensor, **inputs: Tensor) -> Tensor:
        """Logits at the answer positions, in at least float32.

        Parameters
        ----------
        positions : ``[row]``.
        inputs : ``input_ids [row, token]`` or ``inputs_embeds [row, token, hidden]`` of the stack that answers;
            encoder-decoders also need ``source_ids [row, token]`` (or ``source_embeds``), what the encoder reads.

        Returns
        -------
        ``[row, vocabulary]``
        """
        tokens = next(ids for name, ids in inputs.items() if name != "source_ids").shape[1]
        with self.running(positions), answer_only(self.model, positions, tokens):
            output = self.model(**arguments(self.kind, inputs))
        chosen = at_positions(output.logits, positions)
        return self.cost.count(chosen if chosen.dtype == torch.float64 else chosen.float())

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
            self.logits(batch.positions, **batch.inputs())
        return torch.stack([recorded[layer] for layer in range(self.n_layers)], dim=1)

    def answers(self, batch: Batch) -> Answer:
        """The model's answers at the answer position, under whatever interventions are active."""
        with torch.no_grad():
            return answer_of(self.logits(batch.positions, **batch.inputs()), batch.answers)

    def answer_probability(self, fact: Fact, split: Split = "prompts", normalised: bool = False) -> Tensor:
        """Probability of the gold answer in each usable text of a fact: ``[text]``.

        The product of the probabilities of the answer's tokens, each given the gold tokens before it (masked models:
        each at its own mask).

        Parameters
        ----------
        normalised : the geometric mean instead of the product, which does not fall with the answer's length.

        Raises
        ------
        PromptError : no text of the fact can be put to this model.
        """
        prompts = self.encode(fact, split).prompts
        logprobs = torch.empty(len(prompts), dtype=torch.promote_types(self.dtype, torch.float32))
        for indices, batch in self.batches(prompts):
            logprobs[indices] = self.answers(batch).logprob.cpu()
        return by_text(logprobs, prompts, mean=normalised).exp()


def answer_of(logits: Tensor, answers: Tensor) -> Answer:
    """What ``logits [row, vocabulary]`` say of the gold tokens ``answers [row]``."""
    logprobs = logits.log_softmax(-1)
    gold = logprobs.gather(1, answers[:, None])
    return Answer(gold[:, 0], (logprobs > gold).sum(-1) + 1, logprobs.argmax(-1))


def _gold(values: Tensor, answers: Tensor) -> Tensor:
    return values.gather(1, answers[:, None])[:, 0]


def _logodds(logits: Tensor, answers: Tensor) -> Tensor:
    return _gold(logits, answers) - logits.scatter(1, answers[:, None], -torch.inf).logsumexp(1)


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "prob": lambda logits, answers: _gold(logits.softmax(-1), answers),
    "logprob": lambda logits, answers: _gold(logits.log_softmax(-1), answers),
    "logit": _gold,
    "logodds": _logodds,
}


def objective_value(logits: Tensor, answers: Tensor, objective: Objective) -> Tensor:
    """The objective ``F`` of each row.

    ``prob`` is p(answer), ``logprob`` its natural logarithm, ``logit`` the answer's logit, ``logodds`` is
    log p/(1 − p), which stays exact where p is almost 1.

    Parameters
    ----------
    logits : ``[row, vocabulary]``.
    answers : ``[row]``, gold token ids.

    Raises
    ------
    MethodError : unknown objective.
    """
    if objective not in OBJECTIVES:
        raise MethodError(unknown("objective", objective, OBJECTIVES))
    return OBJECTIVES[objective](logits, answers)
