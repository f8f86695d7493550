"""A Hugging Face language model seen as layers of feed-forward neurons."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kn_attrib.errors import ConfigError, NeuronError, PromptError, unknown
from kn_attrib.facts.chat import check_chat
from kn_attrib.facts.encoding import PromptEncoder
from kn_attrib.facts.facts import Fact, facts_of
from kn_attrib.facts.prompts import Batch, Encoding, Kind, Prompt, Split, batches, by_text
from kn_attrib.models.answers import Answer, Gold
from kn_attrib.models.architectures import Architecture, find_architecture
from kn_attrib.models.compute import Compute
from kn_attrib.models.execution import Execution
from kn_attrib.models.head import Head
from kn_attrib.models.hook_points import HookPoints
from kn_attrib.models.matrices import value_matrix
from kn_attrib.models.onednn_linears import fast_linears, linears_of, multiply_frozen
from kn_attrib.models.passes import answer_only, arguments, at_positions, positions_of, quiet
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.neurons import Neuron, NeuronSet

Edit = Callable[[Tensor], Tensor]
"""Maps a layer's neuron vectors ``[row, token, neuron]`` to edited ones."""


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
    chat : put texts to the model through its chat template.

    Attributes
    ----------
    architecture : where the neurons are, and how that is known.
    ffn_outputs : the feed-forward output linear of each layer.
    execution : how the model is run through this object, and how much it has been.
    head : how answers are read off.
    hook_points : one module per layer whose input is always its neuron vectors ``[row, token, neuron]``, for hooks of
        one's own (Captum's layer methods take them); they work while the model runs through this object.

    Raises
    ------
    ModelError : the model's feed-forward neurons cannot be found, or it is no chat model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        kind: Kind,
        name: str,
        ffn_pattern: str | None = None,
        compute: Compute | None = None,
        chat: bool = False,
    ) -> None:
        if chat:
            check_chat(tokenizer, kind, name)
        self.model = model
        self.tokenizer = tokenizer
        self.kind: Kind = kind
        self.name = name
        self._points = HookPoints(model, kind, find_architecture(model, ffn_pattern))
        self.architecture: Architecture = self._points.architecture
        self.ffn_outputs: list[nn.Module] = self._points.ffn_outputs
        self.hook_points: list[nn.Module] = self._points.modules
        embedding: Any = model.get_input_embeddings()
        start = model.config.decoder_start_token_id if kind == "encoder-decoder" else None
        self.encoder = PromptEncoder(tokenizer, kind, start, embedding.weight.shape[0], positions_of(model), chat)
        self.execution = Execution(compute or Compute(), linears_of(model))
        self.head = Head(model, kind, partial(multiply_frozen, self.execution.products))
        self._positions: Tensor | None = None

    def __repr__(self) -> str:
        return (
            f"NeuronModel({self.name!r}, {type(self.model).__name__}, {self.n_layers} layers × "
            f"{self.n_neurons} neurons, {dtype_name(self)}, {self.device})"
        )

    @property
    def n_layers(self) -> int:
        return len(self.ffn_outputs)

    @property
    def n_neurons(self) -> int:
        """Neurons in each layer."""
        return int(value_matrix(self.ffn_outputs[0]).shape[0])

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights (name, shape, bytes), for provenance."""
        return digest_of(self.model)

    def value_vectors(self, layer: int) -> Tensor:
        """What each neuron of a layer writes to the residual stream per unit of activation: ``[neuron, hidden]``.

        Raises
        ------
        NeuronError : the model has no such layer.
        """
        self._check_layer(layer)
        return value_matrix(self.ffn_outputs[layer]).detach()

    def _check_layer(self, layer: int) -> None:
        if not 0 <= layer < self.n_layers:
            raise NeuronError(f"layer {layer} does not exist; {self.name} has layers 0 to {self.n_layers - 1}.")

    def value_norms(self) -> Tensor:
        """Euclidean norms of the value vectors: ``[layer, neuron]``."""
        return torch.stack([self.value_vectors(layer).norm(dim=-1) for layer in range(self.n_layers)])

    # -- prompts -------------------------------------------------------------------------------------------------

    def encode(self, facts: Fact | Sequence[Fact], split: Split = "prompts") -> Encoding:
        """Encode the texts of facts; texts that cannot be put to this model are listed in ``skipped``.

        Raises
        ------
        ConfigError : there is no such list of texts.
        FactError : what is given are no facts.
        PromptError : no text at all can be used (the first reason is quoted).
        """
        if split not in get_args(Split):
            raise ConfigError(unknown("split", str(split), get_args(Split)))
        encoding = self.encoder.encode_all(facts_of(facts), split)
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

        Raises
        ------
        NeuronError : the model has no such layer.
        """
        for layer in edits:
            self._check_layer(layer)
        with self._points.edited(edits):
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
        """While active the model is in eval mode, its weights are frozen and hooks know the answer positions.

        PyTorch is at its defaults (`torch_defaults`), but gradients are recorded only where the caller records them.
        """
        outer, self._positions = self._positions, positions
        try:
            own = torch_defaults(gradients=False)
            fast = fast_linears(self.execution.linears, self.execution.products)
            with own, quiet(self.model), fast, self._points.attached():
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

        Raises
        ------
        PromptError : inputs that this kind of model does not read, or two of one kind.
        """
        tokens = next(ids for name, ids in inputs.items() if name != "source_ids").shape[1]
        with self.running(positions), answer_only(self.model, positions, tokens):
            output = self.model(**arguments(self.kind, inputs))
        chosen = at_positions(output.logits, positions)
        return self.execution.cost.count(chosen if chosen.dtype == torch.float64 else chosen.float())

    def final(self, positions: Tensor, **inputs: Tensor) -> Tensor:
        """What the head makes its answer of at the answer positions; parameters as of `logits`.

        Returns
        -------
        ``[row, …]``, for `Head.gold` and `Head.answer`
        """
        tokens = next(ids for name, ids in inputs.items() if name != "source_ids").shape[1]
        with self.running(positions):
            found = self.head.final(lambda: self.model(**arguments(self.kind, inputs)), positions, tokens)
        return self.execution.cost.count(found)

    def gold(self, positions: Tensor, answers: Tensor, **inputs: Tensor) -> Gold:
        """The gold tokens ``answers [row]`` at the answer positions, differentiable; parameters as of `logits`."""
        return self.head.gold(self.final(positions, **inputs), answers)

    @torch_defaults()
    def embed(self, batch: Batch) -> Tensor:
        """Token embeddings of a batch, a leaf that gradients can be taken for: ``[prompt, token, hidden]``."""
        embedding = self.model.get_input_embeddings()
        with torch.no_grad():
            vectors: Tensor = embedding(batch.input_ids)
        return vectors

    @torch_defaults()
    def record(self, batch: Batch) -> Tensor:
        """Neuron activations at the answer position: ``[prompt, layer, neuron]``."""
        recorded: dict[int, Tensor] = {}

        def keep(layer: int) -> Edit:
            def edit(vectors: Tensor) -> Tensor:
                recorded[layer] = self.at_answer(vectors).detach()
                return vectors

            return edit

        with torch.no_grad(), self.edited({layer: keep(layer) for layer in range(self.n_layers)}):
            self.final(batch.positions, **batch.inputs())
        return torch.stack([recorded[layer] for layer in range(self.n_layers)], dim=1)

    @torch_defaults()
    def answers(self, batch: Batch) -> Answer:
        """The model's answers at the answer position, under whatever interventions are active."""
        with torch.no_grad():
            return self.head.answer(self.final(batch.positions, **batch.inputs()), batch.answers)

    @torch_defaults()
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


def check_neurons(model: NeuronModel, neurons: NeuronSet) -> NeuronSet:
    """Return ``neurons`` if all exist in the model.

    Raises
    ------
    NeuronError : a neuron lies outside the model.
    """
    layers, width = model.n_layers, model.n_neurons
    for neuron in neurons:
        if neuron.layer >= layers or neuron.index >= width:
            raise NeuronError(f"{neuron} does not exist; {model.name} has {layers} layers × {width} neurons.")
    return neurons


def all_neurons(model: NeuronModel) -> NeuronSet:
    """Every neuron of a model."""
    return NeuronSet(Neuron(layer, i) for layer in range(model.n_layers) for i in range(model.n_neurons))


def dtype_name(model: NeuronModel) -> str:
    """``"float32"`` and the like."""
    return str(model.dtype).removeprefix("torch.")


def digest_of(model: PreTrainedModel) -> str:
    """SHA-256 over the names, shapes and bytes of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        # Viewed as bytes: numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
