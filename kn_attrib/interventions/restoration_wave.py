"""Restorations of one prompt as rows of few passes: the fast twin of `CorruptedRun.restored`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from kn_attrib.forward.clean_pass import Call, CleanPassRecorder, RunningRows, read_only
from kn_attrib.forward.memory import bytes_per_block
from kn_attrib.forward.tail import run_tail
from kn_attrib.forward.wave_block import for_rows
from kn_attrib.interventions.corrupted_run import CorruptedRun, Restoration
from kn_attrib.interventions.states import STATES, State
from kn_attrib.models.neuron_model import Edit
from kn_attrib.models.passes import arguments

NONE = -1
"""In `StateRows.severed`: nothing."""


@dataclass(frozen=True)
class StateRows:
    """Rows of a wave, each a restoration in one corrupted run; all fields are ``[row]``.

    Attributes
    ----------
    number : of the restoration.
    sample : the corrupted run.
    entry : first block that is run anew, the one behind the first restored state (as many as there are layers: none).
    state, severed : indices into `STATES`.
    token, low, high : as of `Restoration`.
    """

    number: Tensor
    sample: Tensor
    entry: Tensor
    state: Tensor
    severed: Tensor
    token: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, numbers: Sequence[int], restorations: Sequence[Restoration], run: CorruptedRun) -> StateRows:
        """All samples of some restorations, sorted by the block that they enter at."""
        samples = len(run.embeddings)
        order = sorted(numbers, key=lambda number: restorations[number].low)
        entries = [
            (number, r.low + 1, STATES.index(r.state), _code(r.severed), r.token, r.low, r.high)
            for number, r in ((number, restorations[number]) for number in order)
        ]
        columns = torch.tensor(entries, device=run.embeddings.device).repeat_interleave(samples, 0)
        number, entry, state, severed, token, low, high = columns.unbind(1)
        sample = torch.arange(samples, device=columns.device).repeat(len(order))
        return cls(number, sample, entry, state, severed, token, low, high)

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, part: slice | Tensor) -> StateRows:
        return StateRows(**{each.name: getattr(self, each.name)[part] for each in fields(self)})

    def chunks(self, size: int) -> list[StateRows]:
        """Consecutive pieces of at most ``size`` rows."""
        return [self[start : start + size] for start in range(0, len(self), size)]


class RestorationWave:
    """p(gold token) of many restorations of one prompt.

    Parameters
    ----------
    run : the corrupted runs.
    max_tokens : most tokens of a pass; memory is kept by the model's budget too.
    """

    def __init__(self, run: CorruptedRun, max_tokens: int = 4096) -> None:
        self.run, self.max_tokens = run, max_tokens
        self.model = run.points.model
        self.blocks = run.points.modules["hidden"]
        self.causal = self.model.kind == "causal"
        self.running = RunningRows()
        self.recorder = CleanPassRecorder(self.model, self.blocks, prefix=self.causal, whole=True)
        positions = torch.full((len(run.embeddings),), run.prompt.position, device=self.model.device)
        found, self.cache = self.recorder.run({"inputs_embeds": run.embeddings}, positions)
        self.packs = found.packs
        # What the head would be given stands behind the last block.
        self.inputs = [*found.inputs, run.corrupted["hidden"][-1]]
        self.behind: dict[tuple[State, int], Tensor] = {}

    def restored(self, restorations: Sequence[Restoration]) -> Tensor:
        """``[restoration, sample]``, as `CorruptedRun.restored` gives one after the other."""
        found = self.run.answer(self.run.final).repeat(len(restorations), 1)
        for first, numbers in self._by_first_token(restorations).items():
            rows = StateRows.of(numbers, restorations, self.run)
            calls = self._calls(first)
            for part in rows.chunks(self._size(first)):
                with torch.no_grad(), self.model.running(torch.zeros_like(part.token)):
                    final = self._final(part, first, calls)
                found[part.number, part.sample] = self.run.answer(self.model.execution.cost.count(final))
        return found

    def _by_first_token(self, restorations: Sequence[Restoration]) -> dict[int, list[int]]:
        """First token that rows consist of -> indices of restorations.

        In causal models all tokens left of the corrupted ones are clean as they are: nothing is there to restore.
        """
        groups: dict[int, list[int]] = {}
        start = self.run.first_corrupted if self.causal else 0
        for number, each in enumerate(restorations):
            if each.token >= start:
                groups.setdefault(each.token if self.causal else 0, []).append(number)
        return groups

    def _size(self, first: int) -> int:
        """Most rows of a pass."""
        tokens = self.run.embeddings.shape[1]
        own = tokens - first
        each = bytes_per_block(self.model, own, tokens) + self.model.head.row_bytes(self.model.dtype)
        return max(1, min(self.max_tokens // own, self.model.execution.row_budget(self.model.device) // each))

    def _calls(self, first: int) -> list[Call]:
        """Each block's further arguments for rows that begin with a token."""
        one = {"inputs_embeds": self.run.embeddings[:1]}
        given = arguments(self.model.kind, one)
        if not first or self.cache is None:
            return self.recorder.calls_of(given, None)
        given |= {"inputs_embeds": one["inputs_embeds"][:, first:]}  # the mask still spans all tokens
        return self.recorder.calls_of(given, read_only(self.cache, first, self.running))

    def _final(self, rows: StateRows, first: int, calls: Sequence[Call]) -> Tensor:
        """What the head makes its answer of, for each row."""
        counts = torch.bincount(rows.entry, minlength=len(self.inputs)).tolist()
        hidden = self.inputs[0][:0, first:]
        for layer in range(int(rows.entry[0]), len(self.inputs)):
            done = len(hidden) + counts[layer]
            hidden = torch.cat([hidden, self._entering(layer, rows[len(hidden) : done], first)])
            if layer < len(self.blocks) and len(hidden):
                hidden = self._through(layer, hidden, rows[:done], first, calls[layer])
        answer = hidden[:, self.run.prompt.position - first, None]
        token = torch.tensor([self.run.prompt.input_ids[-1:]], device=hidden.device)
        return run_tail(self.model, self.blocks, self.packs, answer, token)

    def _entering(self, layer: int, rows: StateRows, first: int) -> Tensor:
        """What rows enter a block with: the corrupted run's states, but for the token restored right before."""
        states = self.inputs[layer][rows.sample, first:]
        for state in self.run.points.states:
            own = (rows.state == STATES.index(state)).nonzero()[:, 0]
            if len(own):
                tokens = rows.token[own]
                states[own, tokens - first] = self._behind(state, layer - 1)[rows.sample[own], tokens]
        return states

    def _behind(self, state: State, layer: int) -> Tensor:
        """The hidden state of each token behind a layer if its state there is restored: ``[sample, token, hidden]``.

        Behind its attention a block does the same to each token by itself, so that one pass restores all tokens.
        """
        if (state, layer) not in self.behind:
            clean = self.run.clean[state][layer].expand(len(self.run.embeddings), -1, -1)
            if state != "hidden":
                args, kwargs = self._whole[layer]
                with self.run.points.edited({(state, layer): lambda _: clean}, len(clean)):
                    output = self.blocks[layer](self.inputs[layer], *args, **for_rows(kwargs, len(clean)))
                clean = output[0] if isinstance(output, tuple) else output
            self.behind[state, layer] = clean
        return self.behind[state, layer]

    @cached_property
    def _whole(self) -> list[Call]:
        return self._calls(0)

    def _through(self, layer: int, hidden: Tensor, rows: StateRows, first: int, call: Call) -> Tensor:
        """Hidden states behind a block."""
        self.running.prompts = rows.sample
        args, kwargs = call
        edits: dict[tuple[State, int], Edit] = {
            (state, layer): edit
            for state in self.run.points.states
            if state != "hidden" and (edit := self._edit(state, layer, rows, first)) is not None
        }
        with self.run.points.edited(edits, len(rows)):
            output = self.blocks[layer](hidden, *args, **for_rows(kwargs, len(rows)))
        behind: Tensor = output[0] if isinstance(output, tuple) else output
        return behind

    def _edit(self, state: State, layer: int, rows: StateRows, first: int) -> Edit | None:
        """What puts the states of some rows to their clean, or their corrupted values; None where there are none."""
        code = STATES.index(state)
        restored = ((rows.state == code) & (rows.low <= layer) & (layer < rows.high)).nonzero()[:, 0]
        severed = ((rows.severed == code) & (rows.high <= layer)).nonzero()[:, 0]
        if not len(restored) and not len(severed):
            return None
        clean = self.run.clean[state][layer][0, rows.token[restored]]
        corrupted = self.run.corrupted[state][layer][rows.sample[severed], rows.token[severed]]
        where, values = torch.cat([restored, severed]), torch.cat([clean, corrupted])

        def edit(states: Tensor) -> Tensor:
            states = states.clone()
            states[where, rows.token[where] - first] = values
            return states

        return edit


def _code(severed: State | None) -> int:
    return NONE if severed is None else STATES.index(severed)
