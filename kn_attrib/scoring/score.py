"""`score`: run one method on facts and check what it returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kn_attrib.errors import MethodError
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.facts.prompts import Batch, Prompt, by_text, left_out, texts_of
from kn_attrib.forward.batching import batches_of
from kn_attrib.models.compute import computing
from kn_attrib.models.neuron_model import NeuronModel, dtype_name
from kn_attrib.models.torch_defaults import torch_defaults
from kn_attrib.models.validation import check_answers
from kn_attrib.scoring.forecast import warn_if_long
from kn_attrib.scoring.neuron_scores import NeuronScores
from kn_attrib.scoring.registry import make_scorer
from kn_attrib.scoring.scorer import Attribution, Scorer
from kn_attrib.store import versions

BY_LAYER = ("gap", "difference", "error", "capped")
"""What an attribution may say of each prompt and layer."""


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
    contrast : further facts, for methods that compare facts with one another; not scored.

    Returns
    -------
    NeuronScores with ``values [prompt, layer, neuron]`` in the order of the facts and their texts.

    Warns
    -----
    SkippedPromptWarning : texts were left out.
    LongRunWarning : it is going to take more than ten minutes; says how long, and what would be cheaper.

    Raises
    ------
    PromptError : no text of the facts can be used.
    MethodError : unknown method, or it returned a wrong shape or non-finite scores.
    ModelError : scores are not finite because the model's answers are not.
    """
    facts = [fact_or_facts] if isinstance(fact_or_facts, Fact) else list(fact_or_facts)
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
        "versions": versions(),
    }
    others = model.encoder.encode_all(contrast, "prompts").prompts
    warn_if_long(model, scorer, encoding.prompts, stacklevel=4)
    fitted = fit(scorer, model, encoding.prompts, others)
    scores = score_prompts(model, encoding.prompts, fitted, max_prompts, progress, provenance, keep_tokens)
    scores.provenance["products"] = model.execution.products_so_far()
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
    for indices, batch in batches_of(model, prompts, max_prompts, scorer.any_length):
        found = checked(scorer, model, batch)
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
        provenance=provenance or {},
        capped=None if capped is None else capped > 0,
        **means,
        tokens=tuple(len(text) for text in texts),
        token_values=values if keep_tokens else None,
    )


def fit(scorer: Scorer, model: NeuronModel, prompts: Sequence[Prompt], others: Sequence[Prompt] = ()) -> Scorer:
    """`Scorer.fit`, computed as the model says."""
    with computing(model.execution.settings.precision, model.model.get_output_embeddings()):
        return scorer.fit(model, prompts, others)


def checked(scorer: Scorer, model: NeuronModel, batch: Batch) -> Attribution:
    """What a scorer returns, as an Attribution of the right shape with finite values.

    Raises
    ------
    MethodError : it is not; the method is named.
    ModelError : it is not, and the model's own answers are not finite either.
    """
    with computing(model.execution.settings.precision, model.model.get_output_embeddings()):
        result = scorer.score(model, batch)
    found = result if isinstance(result, Attribution) else Attribution(result)
    expected = (len(batch), model.n_layers, model.n_neurons)
    if not isinstance(found.values, Tensor) or tuple(found.values.shape) != expected:
        shape = tuple(found.values.shape) if isinstance(found.values, Tensor) else type(found.values).__name__
        raise MethodError(
            f"method {scorer.name!r} returned {shape}; expected a tensor [prompt, layer, neuron] of shape {expected}."
        )
    bad = int((~found.values.isfinite()).sum())
    if bad:
        check_answers(model, batch)  # the model's fault rather than the method's
        raise MethodError(
            f"method {scorer.name!r} returned {bad} scores that are not finite (nan or inf) among "
            f"{found.values.numel()}; a score must be a finite number."
        )
    return found
