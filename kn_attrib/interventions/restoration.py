"""A corrupted run with states put back to what they were in the clean run: many of them as rows of few passes.

Restoring a state of token ``t`` in layer ``l`` changes nothing before layer ``l``, and in a causal model nothing left
of ``t``; behind layer ``l`` only ``t`` is another. So a row enters behind its first restored state, with what the
corrupted run has there, and rows of later layers join it; in a causal model rows are the tokens from ``t`` on, and read
the keys and values that the corrupted run has left of ``t``. The model's own blocks are called, as in
`kn_attrib.forward.wave`, and held to whole passes before they may answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.errors import ModelError
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.forward.guards import cannot_run, is_hooked, tolerance, warn_of_plain_path
from kn_attrib.interventions.corrupted_run import CorruptedRun, Restoration
from kn_attrib.interventions.restoration_wave import RestorationWave
from kn_attrib.interventions.states import StatePoints
from kn_attrib.models.compute import full_precision
from kn_attrib.models.torch_defaults import torch_defaults


@dataclass(frozen=True)
class Restored:
    """Probabilities of the gold token, clean, corrupted, and with states restored.

    Attributes
    ----------
    clean, rank : of the clean run: the probability, and 1 where the token is the most likely one.
    corrupted : ``[sample]``.
    restored : ``[restoration, sample]``.
    """

    clean: float
    rank: int
    corrupted: Tensor
    restored: Tensor


@torch_defaults()
def restore(
    points: StatePoints, prompt: Prompt, embeddings: Tensor, restorations: Sequence[Restoration], max_tokens: int = 4096
) -> Restored:
    """p(gold token) of corrupted runs of a prompt with one state, or window of states, restored in each row.

    Every restoration is made in every corrupted run; none sees another.

    Parameters
    ----------
    points : of the model.
    prompt : the query.
    embeddings : ``[sample, token, hidden]``, corrupted (`corrupted_embeddings`).
    restorations : what is put back.
    max_tokens : most tokens of a pass; memory is kept by the model's budget too.

    Raises
    ------
    ModelError : the model answers differently when it is given a text's embeddings instead of its ids.
    """
    model = points.model
    batch = Batch((prompt,), model.device)
    run = CorruptedRun.of(points, batch, embeddings)
    answer = model.answers(batch)
    distance = float((run.answer(run.clean_final)[0].log() - answer.logprob[0]).abs())
    if not distance <= 10 * tolerance(model) * (1 + float(answer.logprob[0].abs())):
        raise ModelError(
            f"{model.name} needs token ids: given the embeddings of {prompt.text!r} instead, it answers differently "
            f"(log p by {distance:.1e}), so its subjects cannot be corrupted."
        )
    wave = _wave_or_none(run, restorations, max_tokens)
    restored = [run.restored(each) for each in restorations] if wave is None else wave.restored(restorations)
    return Restored(
        clean=float(answer.logprob[0].exp()),
        rank=int(answer.rank[0]),
        corrupted=run.answer(run.final).cpu(),
        restored=torch.stack(list(restored)).cpu() if restorations else run.final.new_zeros(0, len(embeddings)).cpu(),
    )


def _wave_or_none(run: CorruptedRun, restorations: Sequence[Restoration], max_tokens: int) -> RestorationWave | None:
    """The fast path, if its guard passes for the model and for prompts of this length."""
    model = run.points.model
    if model.execution.settings.engine == "plain" or is_hooked(model):
        return None
    verdict = model.execution.restoration_verdict
    length = len(run.prompt.input_ids)
    if length not in verdict.lengths and not verdict.reason:
        with full_precision():
            verdict.reason = check_wave(run, restorations)
        verdict.lengths.add(length)
        warn_of_plain_path(model, verdict)
    return None if verdict.reason else RestorationWave(run, max_tokens)


def check_wave(run: CorruptedRun, restorations: Sequence[Restoration]) -> str:
    """Compare one restoration of every kind with a whole pass.

    Returns
    -------
    The reason why the wave is not to be used, empty if it may be.
    """
    kinds: dict[object, list[Restoration]] = {}
    for each in restorations:
        kinds.setdefault((each.state, each.severed), []).append(each)
    chosen = [some[(2 * len(some)) // 3] for some in kinds.values()]
    expected = [run.restored(each).log() for each in chosen]
    try:
        found = [row.log() for row in RestorationWave(run).restored(chosen)]
    except Exception as error:  # a model's own code, as in `guards.check_rows`
        return cannot_run(error)
    for each, ours, theirs in zip(chosen, found, expected, strict=True):
        distance = float(((ours - theirs).abs() / (1 + theirs.abs())).max())
        if not distance <= tolerance(run.points.model):
            return f"restored {each.state} states differ from whole passes by {distance:.1e}"
    return ""
