"""`score`: run one method on facts and check what it returns."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import Fact, FactSet, facts_of
from kn_attrib.facts.prompts import Batch, Encoding, Prompt, by_text, left_out, texts_of
from kn_attrib.forward.batching import batches_of
from kn_attrib.models.compute import computing
from kn_attrib.models.cost import cost_text, spending
from kn_attrib.models.given import check_model
from kn_attrib.models.neuron_model import NeuronModel, dtype_name
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.models.validation import check_answers
from kn_attrib.scoring.forecast import warn_if_long
from kn_attrib.scoring.guarded import guarded
from kn_attrib.scoring.neuron_scores import NeuronScores
from kn_attrib.scoring.registry import make_scorer
from kn_attrib.scoring.scorer import Attribution, Scorer
from kn_attrib.store import versions

LOG = logging.getLogger(__name__)
BY_LAYER = ("gap", "difference", "error", "capped")
"""What an attribution may say of each prompt and layer."""


ARTICLE = {"gap": "a", "difference": "a", "error": "an", "capped": "a mask"}


class SkippedPromptWarning(UserWarning):
    """Some texts of the facts cannot be put to the model, or are the same for it as others, and were left out."""


@torch_defaults()
def score(
    model: NeuronModel,
    fact_or_facts: Fact | Sequence[Fact],
    method: str | type[Scorer] | Scorer,
    max_prompts: int = 64,
    progress: Callable[[int], object] | None = None,
    keep_tokens: bool = False,
    contrast: Sequence[Fact] = (),
) -> NeuronScores:
    """Score every neuron for every attribution prompt of one or more facts.

    An answer of several tokens is asked for token by token, each given the gold tokens before it (masked models: each
    at its own mask); a prompt's scores are the mean over them.

    Parameters
    ----------
    model : from `load_model`.
    fact_or_facts : facts whose ``prompts`` are used; texts that the model cannot be asked are left out with a warning.
    method : a scorer, a scorer class, or text: ``"name"``, ``"name:preset"``, ``"name(param=value)"``.
    max_prompts : most prompts in one batch.
    progress : called with the number of prompts done after each batch.
    keep_tokens : keep the scores of each answer token too, as ``token_values``.
    contrast : further facts, for methods that compare facts with one another; not scored. Any method may be given some,
        and the provenance says which.

    Returns
    -------
    NeuronScores with ``values [prompt, layer, neuron]`` in the order of the facts and their texts.

    Warns
    -----
    SkippedPromptWarning : texts were left out.
    LongRunWarning : it is going to take more than ten minutes; says how long, and what would be cheaper.

    Raises
    ------
    ConfigError : ``max_prompts`` is not positive.
    FactError : what is given are no facts.
    PromptError : no text of the facts can be used, or none of the contrast facts.
    MethodError : unknown method, or it returned a wrong shape or non-finite scores.
    ModelError : ``model`` is none, or scores are not finite because the model's answers are not.
    """
    check_model(model)
    facts = facts_of(fact_or_facts)
    encoding = model.encode(facts)
    if encoding.skipped:
        warnings.warn(left_out(encoding.skipped, len(encoding.texts)), SkippedPromptWarning, stacklevel=3)
    scorer = make_scorer(method)
    provenance: dict[str, object] = {
        "model": model.name,
        "model_sha256": model.digest,
        "chat": model.encoder.chat_frame,
        "dtype": dtype_name(model),
        "precision": model.execution.settings.precision,
        "facts_sha256": FactSet(tuple(facts)).digest,
        "contrast_sha256": FactSet(tuple(contrast)).digest if contrast else None,
        "versions": versions(),
    }
    others = model.encode(contrast) if contrast else Encoding(())
    if others.skipped:
        message = f"contrast: {left_out(others.skipped, len(others.texts))}"
        warnings.warn(message, SkippedPromptWarning, stacklevel=3)
    warn_if_long(model, scorer, encoding.prompts, stacklevel=4)
    LOG.debug("%s: scoring %d texts of %d facts on %s", scorer, len(encoding.texts), len(facts), model.name)
    with spending(model.execution.cost) as spent:
        fitted = fit(scorer, model, encoding.prompts, others.prompts)
        scores = score_prompts(model, encoding.prompts, fitted, max_prompts, progress, provenance, keep_tokens)
    scores.provenance["products"] = model.execution.products_so_far()
    LOG.info("%s: %d texts of %d facts scored, %s", scorer.name, len(encoding.texts), len(facts), cost_text(spent))
    LOG.debug("%s: large products by %s", model.name, scores.provenance["products"])
    return scores


@torch_defaults()
def score_prompts(
    model: NeuronModel,
    prompts: Sequence[Prompt],
    scorer: Scorer,
    max_prompts: int = 64,
    progress: Callable[[int], object] | None = None,
    provenance: dict[str, object] | None = None,
    keep_tokens: bool = False,
) -> NeuronScores:
    """`score` for queries that are encoded already (a text's side by side, in order), by a scorer that is fitted."""
    dtype = torch.promote_types(model.dtype, torch.float32)
    values = torch.empty(len(prompts), model.n_layers, model.n_neurons, dtype=dtype)
    by_layer = {name: torch.full(values.shape[:2], torch.nan, dtype=dtype) for name in BY_LAYER}
    with guarded(scorer, model, thorough=True, blame=False) as put_back:
        for indices, batch in batches_of(model, prompts, max_prompts, scorer.any_length):
            found = checked(scorer, model, batch, put_back)
            values[indices] = found.values.detach().to(values)
            for name, tensor in by_layer.items():
                given = getattr(found, name)
                if given is not None:
                    tensor[indices] = given.detach().to(tensor)
            if progress is not None:
                progress(len(indices))
    texts = texts_of(prompts)
    means = {
        name: None if tensor.isnan().any() else by_text(tensor, prompts, mean=True) for name, tensor in by_layer.items()
    }
    capped = means.pop("capped")
    return NeuronScores(
        values=by_text(values, prompts, mean=True),
        facts=tuple(text.fact.id for text in texts),
        relations=tuple(text.fact.relation for text in texts),
        texts=tuple(text.text for text in texts),
        method=scorer.name,
        params=scorer.params(),
        provenance={**(provenance or {}), **({"put_back": list(dict.fromkeys(put_back))} if put_back else {})},
        capped=None if capped is None else capped > 0,
        **means,
        tokens=tuple(len(text) for text in texts),
        token_values=values if keep_tokens else None,
    )


def fit(scorer: Scorer, model: NeuronModel, prompts: Sequence[Prompt], others: Sequence[Prompt] = ()) -> Scorer:
    """`Scorer.fit`, computed as the model says."""
    with guarded(scorer, model, thorough=True), _computing(model):
        return scorer.fit(model, prompts, others)


def checked(scorer: Scorer, model: NeuronModel, batch: Batch, put_back: list[str] | None = None) -> Attribution:
    """What a scorer returns, as an Attribution of the right shape with finite values.

    Parameters
    ----------
    put_back : takes what had to be put back after it.

    Raises
    ------
    MethodError : it is not, or the method failed or spoilt the model (`kn_attrib.scoring.guarded`); it is named.
    ModelError : values are not finite, and the model's own answers are not either.
    """
    with guarded(scorer, model, found=put_back), _computing(model):
        result = scorer.score(model, batch)
    found = result if isinstance(result, Attribution) else Attribution(result)
    _check_tensor(scorer, "scores", found.values, (len(batch), model.n_layers, model.n_neurons))
    for name in BY_LAYER:
        given = getattr(found, name)
        if given is not None:
            _check_tensor(
                scorer, f"{ARTICLE[name]} {name}", given, (len(batch), model.n_layers), flags=name == "capped"
            )
            _check_finite(scorer, f"values of {name}", given, model, batch)
    _check_finite(scorer, "scores", found.values, model, batch)
    return found


def _check_tensor(scorer: Scorer, what: str, given: object, shape: tuple[int, ...], flags: bool = False) -> None:
    axes = "[prompt, layer, neuron]" if len(shape) == 3 else "[prompt, layer]"
    expected = f"expected a tensor {axes} of shape {shape}"
    if not isinstance(given, Tensor):
        raise MethodError(f"method {scorer.name!r} returned {type(given).__name__} for {what}; {expected}.")
    if tuple(given.shape) != shape:
        raise MethodError(f"method {scorer.name!r} returned {what} of shape {tuple(given.shape)}; {expected}.")
    kind = "bool" if flags else "floating-point numbers"
    fits = given.dtype == torch.bool if flags else given.dtype.is_floating_point
    if not fits or given.layout != torch.strided or given.is_meta:
        how = [str(given.dtype).removeprefix("torch."), str(given.layout).removeprefix("torch."), given.device.type]
        raise MethodError(f"method {scorer.name!r} returned {what} as {', '.join(how)}; {expected}, of {kind}, dense.")


def _check_finite(scorer: Scorer, what: str, given: Tensor, model: NeuronModel, batch: Batch) -> None:
    bad = int((~given.isfinite()).sum())
    if bad:
        check_answers(model, batch)  # the model's fault rather than the method's
        raise MethodError(
            f"method {scorer.name!r} returned {bad} {what} that are not finite (nan or inf) among {given.numel()}; "
            "a score must be a finite number."
        )


def _computing(model: NeuronModel) -> AbstractContextManager[None]:
    """PyTorch as the model says."""
    return computing(model.execution.settings.precision, model.model.get_output_embeddings())
