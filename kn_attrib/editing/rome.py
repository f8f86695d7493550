"""ROME: one layer's output matrix changed by a product of two vectors, so that the subject's key finds a new value."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from typing_extensions import Self, override

from kn_attrib.editing.changes import Change, RankOne
from kn_attrib.editing.edit import Edit
from kn_attrib.editing.editor import Editor
from kn_attrib.editing.key_moment import KeyMoment, key_moment
from kn_attrib.editing.prefixes import generated_prefixes
from kn_attrib.editing.registry import register_editor
from kn_attrib.editing.subject_value import ValueSettings, learnt_value, read_keys, subject_readings
from kn_attrib.editing.weight_delta import check_alone
from kn_attrib.errors import ConfigError, EditError, check_kinds
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.randomness import checked_seed


@register_editor("rome")
@dataclass(frozen=True)
class Rome(Editor):
    """A rank-one change of one layer, at the subject's last token: its key is given a value that says the target.

    ``W ← W + u ⊗ δ / (k · u)`` with ``W [neuron, hidden]``, ``u = C⁻¹ k̄ / ‖C⁻¹ k̄‖``, the key ``k`` (the neuron vector)
    at the subject in the bare prompt and ``k̄`` its mean over contexts, ``C`` the second moment of keys over ordinary
    text (`Editor.fit`), and ``δ`` learnt: see `kn_attrib.editing.subject_value.learnt_value`. In the bare prompt the
    layer then writes ``v + δ`` there, exactly.

    The first of the edit's texts that names the subject is used. Contexts are texts that a causal model generates,
    put before the prompt; masked models have the bare prompt alone. Targets of several tokens are learnt together,
    each behind the ones before it.

    Differs from the published code: contexts are drawn with a seed, and those that name the subject are left out; texts
    of several lengths are not padded; ``C`` may have a ridge. Where a norm stands behind the block (Gemma 2 and 3), δ
    is added before it, as the changed matrix does.

    Parameters
    ----------
    layer : whose output matrix is changed. The published ones: 17 of gpt2-xl's 48, 12 of gpt2-large's 36, 8 of
        gpt2-medium's 24, 5 of GPT-J's 28.
    steps : most evaluations of the loss, one more than Adam's steps.
    rate : of Adam.
    drift, decay : weights of the KL divergence and of the length of δ in the loss.
    clamp : most of ``‖δ‖ / ‖v‖``.
    stop : stop below this loss, in nats.
    moment : whether ``C`` is used; if not it is the identity, and nothing is to be fitted.
    ridge : times the mean of ``C``'s diagonal, what is added to it.
    contexts : how many are generated of each of two lengths.
    seed : of the contexts.

    Reference
    ---------
    Meng et al. 2022, *Locating and Editing Factual Associations in GPT*, arXiv 2202.05262; its repository at 0874014.
    """

    layer: int
    steps: int = 20
    rate: float = 0.5
    drift: float = 0.0625
    decay: float = 0.5
    clamp: float = 4.0
    stop: float = 0.05
    moment: bool = True
    ridge: float = 0.0
    contexts: int = 10
    seed: int = 0
    reference: ClassVar[str] = "Meng et al. 2022, arXiv 2202.05262"
    _moment: KeyMoment | None = field(default=None, init=False, repr=False, compare=False)
    _prefixes: tuple[str, ...] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kinds(self, self.name)
        for name, least in (("layer", 0), ("steps", 1), ("contexts", 0), ("drift", 0), ("decay", 0), ("ridge", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{self.name}: {name} is {getattr(self, name)}; expected at least {least}.")
        for name in ("rate", "clamp"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{self.name}: {name} is {getattr(self, name)}; expected more than 0.")
        checked_seed(self.seed)

    @override
    def fit(self, model: NeuronModel, texts: Sequence[str]) -> Self:
        """A copy that knows what the layer's keys usually are, and has its contexts.

        Parameters
        ----------
        model : the model to be edited, as it is before.
        texts : ordinary text; not looked at where ``moment`` is False.

        Raises
        ------
        EditError, NeuronError : as of `key_moment`.

        Warns
        -----
        FewKeysWarning : there are fewer than ten tokens for each neuron.
        """
        fitted = copy.copy(self)
        found = key_moment(model, self.layer, texts) if self.moment else None
        object.__setattr__(fitted, "_moment", found)
        object.__setattr__(fitted, "_prefixes", generated_prefixes(model, self.contexts, self.seed))
        return fitted

    @override
    def changes(self, model: NeuronModel, edit: Edit) -> Sequence[Change]:
        """The product ``u ⊗ δ / (k · u)``.

        Raises
        ------
        EditError : the editor is not fitted, the subject is not in the text, ``C`` cannot be inverted, the model is an
            encoder-decoder, or its layers share weights.
        NeuronError : the model has no such layer.
        """
        model.value_vectors(self.layer)
        check_alone(model, self.layer)
        if model.kind == "encoder-decoder":
            raise EditError(
                f"{model.name}: {self.name} edits where the subject is read, and a decoder does not read it."
            )
        if self.moment and self._moment is None:
            raise EditError(
                f"{self.name} needs to know what keys usually are; call its fit(model, texts) first, or say "
                "moment=False for the identity in the place of their second moment."
            )
        prefixes = self._prefixes
        if prefixes is None:
            prefixes = generated_prefixes(model, self.contexts, self.seed)
        readings, essence = subject_readings(model, edit, prefixes)
        wide = torch.promote_types(model.dtype, torch.float32)
        keys = read_keys(model, self.layer, readings)
        with torch.no_grad():
            value = model.ffn_outputs[self.layer](keys[:1])[0].to(wide)
        keys = keys.to(wide)
        left = keys.mean(0)
        if self._moment is not None:
            left = self._moment.solve(left, self.ridge).to(left)
        left = left / left.norm()
        settings = ValueSettings(self.steps, self.rate, self.drift, self.decay, self.clamp, self.stop)
        added = learnt_value(model, self.layer, readings, essence, value, settings)
        return [RankOne(self.layer, left.cpu(), (added / (keys[0] @ left)).cpu())]
