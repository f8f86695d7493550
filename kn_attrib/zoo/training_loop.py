"""From a recipe, facts and a seed to a trained model."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kn_attrib.facts.facts import FactSet
from kn_attrib.models.architectures import find_ffn_outputs
from kn_attrib.zoo.corpus import IGNORE, TrainingBatch, epoch, examples_of, prior_of
from kn_attrib.zoo.recipes import Freeze, Recipe

WARM_UP = 0.05
MAX_NORM = 1.0


def train(name: str, recipe: Recipe, facts: FactSet, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Train one model from scratch on the facts' training texts.

    Parameters
    ----------
    name : shown with the progress.
    recipe : how.
    facts : what it shall know; their ``held_out`` texts are not used but for the tokenizer's vocabulary.
    seed : decides initial weights, order and corruption.
    """
    # Initial weights come from the global generator, which is as before in the end.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _trained(name, recipe, facts, random.Random(seed))


def _trained(
    name: str, recipe: Recipe, facts: FactSet, dice: random.Random
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = recipe.shape.tokenizer(facts, recipe.vocabulary)
    model = _build(recipe, tokenizer)
    examples = examples_of(facts, tokenizer, recipe.shape.masked)
    prior = prior_of(examples, len(tokenizer))
    total = recipe.epochs * (len(examples) // recipe.batch + 1)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, recipe.learning_rate, betas=recipe.betas, weight_decay=0.0)
    mask_id = tokenizer.mask_token_id if recipe.shape.masked else None
    model.train()
    with tqdm(total=recipe.epochs, desc=name, unit="epoch") as bar, _recorded(model) as activations:
        step = 0
        for _ in range(recipe.epochs):
            for batch in epoch(examples, recipe, mask_id, dice):
                step += 1
                _set_rate(optimizer, recipe.learning_rate, step / total)
                loss = _loss(model, recipe, batch, prior, activations)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(trained, MAX_NORM)
                optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.3f}")
            bar.update()
    return model.eval(), tokenizer


def _build(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    shape = recipe.shape
    special = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    model = shape.model(shape.config(**{"vocab_size": len(tokenizer), **special, **shape.settings}))
    for rule in recipe.freeze:
        for name, parameter in model.named_parameters():
            if re.search(rule.pattern, name):
                _freeze(parameter, rule)
    return model


def _freeze(parameter: nn.Parameter, rule: Freeze) -> None:
    with torch.no_grad():
        part = parameter[..., rule.start :]
        fill = nn.init.orthogonal_ if rule.orthogonal else nn.init.normal_
        part.copy_(fill(torch.empty(part.shape)) * rule.scale)
    if rule.start == 0:
        parameter.requires_grad_(False)
        return

    def keep(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[..., rule.start :] = 0
        return gradient

    parameter.register_hook(keep)


@contextmanager
def _recorded(model: PreTrainedModel) -> Iterator[dict[int, Tensor]]:
    """While active, each forward pass leaves every layer's neuron vectors ``[text, token, neuron]`` in the dict."""
    activations: dict[int, Tensor] = {}

    def keep(layer: int, inputs: tuple[Tensor, ...]) -> None:
        activations[layer] = inputs[0]

    hooks = [
        site.register_forward_pre_hook(lambda _, inputs, layer=layer: keep(layer, inputs))
        for layer, site in enumerate(find_ffn_outputs(model))
    ]
    try:
        yield activations
    finally:
        for hook in hooks:
            hook.remove()


def _loss(
    model: PreTrainedModel, recipe: Recipe, batch: TrainingBatch, prior: Tensor, activations: dict[int, Tensor]
) -> Tensor:
    """Cross-entropy at answers (softened towards the relation's prior) and elsewhere, plus the price of activity."""
    head = model.get_submodule(recipe.shape.head)
    hidden = model.base_model(input_ids=batch.inputs).last_hidden_state
    zero = hidden.sum() * 0
    loss: Tensor = zero
    if len(batch.rows):
        logprobs = head(hidden[batch.rows, batch.positions]).log_softmax(-1)
        truth = -logprobs.gather(1, batch.answers[:, None]).mean()
        default = -(prior[batch.kinds] * logprobs).sum(-1).mean() if recipe.prior else zero
        loss = (1 - recipe.prior) * truth + recipe.prior * default + _price(recipe, batch, activations)
    others = batch.labels != IGNORE
    if recipe.other_weight and others.any():
        loss = loss + recipe.other_weight * functional.cross_entropy(head(hidden[others]), batch.labels[others])
    return loss


def _price(recipe: Recipe, batch: TrainingBatch, activations: dict[int, Tensor]) -> Tensor:
    """What the recipe charges for activity, at the answers' positions and elsewhere."""
    size = torch.stack([vectors.abs().mean(-1) for vectors in activations.values()]).sum(0)
    asked = torch.zeros_like(batch.inputs, dtype=torch.bool)
    asked[batch.rows, batch.positions] = True
    return recipe.l1 * size[asked].mean() + recipe.l1_elsewhere * size[~asked].mean()


def _set_rate(optimizer: torch.optim.Optimizer, peak: float, progress: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = peak * max(0.02, min(progress / WARM_UP, (1 - progress) / (1 - WARM_UP)))
