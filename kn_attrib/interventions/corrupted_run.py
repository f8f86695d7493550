"""The runs that restoring starts from, and restoring by whole passes: slow, right for every model, the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.interventions.states import Recorded, State, StatePoints
from kn_attrib.models.neuron_model import Edit


@dataclass(frozen=True)
class Restoration:
    """States of one token that are put back to what they were in the clean run.

    Parameters
    ----------
    state : which state.
    token : of which token.
    low, high : in layers ``low`` to ``high − 1``; of hidden states, which hold all that was before, only one layer.
    severed : at the same token, what this writes in the layers behind stays what it was in the corrupted run.
    """

    state: State
    token: int
    low: int
    high: int
    severed: State | None = None


@dataclass(frozen=True)
class CorruptedRun:
    """One prompt, clean and with its subject corrupted, and all states of both.

    Attributes
    ----------
    clean_embeddings, embeddings : ``[1, token, hidden]``, and ``[sample, token, hidden]`` with the subject corrupted.
    clean, corrupted : states, of one row and of a row for each sample.
    clean_final, final : what the head makes its answers of.
    """

    points: StatePoints
    prompt: Prompt
    clean_embeddings: Tensor
    embeddings: Tensor
    clean: Recorded
    corrupted: Recorded
    clean_final: Tensor
    final: Tensor

    @classmethod
    def of(cls, points: StatePoints, batch: Batch, embeddings: Tensor) -> CorruptedRun:
        """Run a prompt clean and corrupted."""
        model = points.model

        def run(rows: Tensor) -> Callable[[], Tensor]:
            return lambda: model.final(batch.positions.expand(len(rows)), inputs_embeds=rows)

        before = model.embed(batch)
        clean, clean_final = points.record(run(before), 1)
        corrupted, final = points.record(run(embeddings), len(embeddings))
        return cls(points, batch.prompts[0], before, embeddings, clean, corrupted, clean_final, final)

    @property
    def first_corrupted(self) -> int:
        """The first token that is not the same in all samples as in the clean run; behind the last if there is none."""
        same = (self.embeddings == self.clean_embeddings).all(-1).all(0)
        return int(same.long().cumprod(0).sum())

    def answer(self, final: Tensor) -> Tensor:
        """Probability of the gold token: ``[row]``, in double precision."""
        answers = torch.full((len(final),), self.prompt.answer_id, device=final.device)
        with torch.no_grad():
            return self.points.model.head.gold(final, answers).logodds.double().sigmoid()

    def restored(self, restoration: Restoration) -> Tensor:
        """p(gold token) with states restored, by a whole pass of all samples: ``[sample]``."""
        r, model = restoration, self.points.model
        layers = range(r.low, r.high)
        edits = {(r.state, layer): _put(r.token, self.clean[r.state][layer][0, r.token]) for layer in layers}
        if r.severed is not None:
            for layer in range(r.high, model.n_layers):
                edits[r.severed, layer] = _put(r.token, self.corrupted[r.severed][layer][:, r.token])
        positions = torch.full((len(self.embeddings),), self.prompt.position, device=model.device)
        with torch.no_grad(), self.points.edited(edits, len(positions)):
            return self.answer(model.final(positions, inputs_embeds=self.embeddings))


def _put(token: int, value: Tensor) -> Edit:
    def edit(states: Tensor) -> Tensor:
        states = states.clone()
        states[:, token] = value
        return states

    return edit
