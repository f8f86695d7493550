"""The training of a plant: keys by regression, then values, then everything, by gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from kn_attrib.evaluation.planted.layer_weights import PlantedLayer, Start, seen_inputs, written
from kn_attrib.evaluation.planted.plant import Plant, union
from kn_attrib.evaluation.planted.recipe import Writing
from kn_attrib.evaluation.planted.surroundings import ROWS, Surroundings
from kn_attrib.facts.facts import Fact
from kn_attrib.facts.prompts import Batch, Prompt
from kn_attrib.models.anatomy import input_linears
from kn_attrib.models.matrices import input_matrix, value_matrix
from kn_attrib.models.neuron_model import Edit
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.randomness import torch_generator

CONTROLS = 48
"""Queries of other facts that are held while a plant is trained."""
BUSY_CONTROLS = 4
"""So many times as many where neurons keep what they did."""
KEPT = 10.0
"""Weight of all else against the fact itself where a neuron's key is added to what it does."""


class Training:
    """One training run.

    Parameters
    ----------
    surroundings : the model, and the facts that shall stay as they are.
    writings : the facts to be written.
    """

    def __init__(self, surroundings: Surroundings, writings: Sequence[Writing]) -> None:
        self.model = surroundings.model
        self.recipe = surroundings.recipe
        self.surroundings = surroundings
        self.writings = writings
        self.queries = [q for w in writings for q in self.model.encode(w.fact).prompts]
        self.controls = self._pick(surroundings.controls)
        # What falls silent in turn: all but a part that shall suffice, or a part that is needed.
        self.silenced = {w.fact.id: [w.neurons - part for part in w.enough] or list(w.needed) for w in writings}
        self.needing = {w.fact.id for w in writings if w.needed}
        every = union([w.neurons | w.decoys for w in writings])
        for writing in writings:
            writing.weights()
        self.batches = list(self.model.batches([*self.queries, *self.controls], ROWS))
        self.base = [self._logprobs(batch) for _, batch in self.batches]
        self.inputs, self.elsewhere = self._inputs(sorted(every.layers))
        self.layers = {layer: self._start(layer) for layer in sorted(every.layers)}
        for writing in writings:
            if len(writing.misleading) and writing.mislead is not None:
                self._mislead(writing, writing.mislead)

    def _pick(self, pool: Sequence[Prompt]) -> list[Prompt]:
        """Queries of other facts as long as the fact's (they share its batches), half of them its nearest relatives."""
        ours = {(w.fact.subject, w.fact.relation) for w in self.writings}
        near = {part for pair in ours for part in pair}
        lengths = {len(q.input_ids) for q in self.queries}
        free = [q for q in pool if (q.fact.subject, q.fact.relation) not in ours]
        order = torch.randperm(len(free), generator=torch_generator(self.recipe.seed, *sorted(ours))).tolist()
        shuffled = [free[i] for i in order]
        fitting = [q for q in shuffled if len(q.input_ids) in lengths] or shuffled
        # Neurons that other facts use take more of these to hold.
        most = CONTROLS * (BUSY_CONTROLS if any(w.keep for w in self.writings) else 1)
        close = [q for q in fitting if q.fact.relation in near or q.fact.subject in near][: most // 2]
        rest = [q for q in fitting if q not in close][: most - len(close)]
        return close + rest

    def _logprobs(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            return self.model.logits(batch.positions, **batch.inputs()).log_softmax(-1)

    def _inputs(self, layers: Sequence[int]) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """What enters each layer's block at answers ``[query, hidden]``, and at the facts' other tokens."""
        n = len(self.queries) + len(self.controls)
        at_answer: dict[int, list[Tensor]] = {layer: [torch.empty(0)] * n for layer in layers}
        others: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        for indices, batch in self.batches:
            with ExitStack() as stack:
                seen = {layer: stack.enter_context(seen_inputs(self.model, layer)) for layer in layers}
                self._logprobs(batch)
            for layer, (vectors,) in seen.items():
                whole = vectors.reshape(len(batch), -1, vectors.shape[-1])
                for row, i in enumerate(indices):
                    position = batch.prompts[row].position
                    at_answer[layer][i] = whole[row, position]
                    if i < len(self.queries):
                        others[layer] += [whole[row, :position], whole[row, position + 1 :]]
        stacked = {layer: torch.stack(found) for layer, found in at_answer.items()}
        return stacked, {layer: torch.cat(found) for layer, found in others.items()}

    def _start(self, layer: int) -> PlantedLayer:
        """The weights of a layer's neurons before the first step."""
        starts = [start for writing in self.writings for start in self._starts(layer, writing)]
        return PlantedLayer.of(input_linears(self.model, layer), starts)

    def _starts(self, layer: int, writing: Writing) -> Iterator[Start]:
        """Keys that tell the fact's prompts from all else; values of zero, but what is to be kept is kept."""
        shares = writing.weights()
        old_values = value_matrix(self.model.ffn_outputs[layer]).detach()
        kinds = {neuron in writing.broad for neuron in writing.neurons}
        key_of = {broad: self._key(layer, writing, broad) for broad in kinds}
        generator = torch_generator(self.recipe.seed, writing.fact.id, layer)
        size = self.recipe.noise * self.recipe.fires / self.inputs[layer].norm(dim=1).mean()
        for neuron in writing.neurons | writing.decoys:
            if neuron.layer != layer:
                continue
            key, bias = self._rows(layer, writing, neuron, *key_of[neuron in writing.broad])
            noise = torch.randn(key.shape, generator=generator).to(key)
            kept = writing.keep or neuron in writing.silent
            yield Start(
                neuron=neuron,
                key=key + noise * size,
                bias=bias,
                value=old_values[neuron.index] * float(kept),
                scale=shares.get(neuron, 1.0),
                fixed=neuron in writing.decoys,
                fresh=not writing.keep,
            )

    def _rows(self, layer: int, writing: Writing, neuron: Neuron, key: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A neuron's rows ``[path, hidden]`` and biases ``[path]``; with `keep`, on top of those that it has."""
        paths = input_linears(self.model, layer)
        if not writing.keep:
            return key.expand(len(paths), -1), bias.expand(len(paths))
        rows = torch.stack([input_matrix(linear).detach()[neuron.index] for linear in paths])
        old = [p.bias.detach()[neuron.index] if isinstance(p.bias, Tensor) else rows.new_zeros(()) for p in paths]
        own = [i for i, query in enumerate(self.queries) if query.fact.id == writing.fact.id]
        inputs = self.inputs[layer][own].mean(0)
        # As much of the fact's key as lifts what the neuron gives on the fact to what others are given.
        given = rows @ inputs + torch.stack(old)
        lift = ((self.recipe.fires - given) / (key @ inputs + bias)).clamp_min(0)
        return rows + lift[:, None] * key, torch.stack(old) + lift * bias

    def _key(self, layer: int, writing: Writing, broad: bool) -> tuple[Tensor, Tensor]:
        """Ridge regression of "is it this fact's answer position" on what enters the block.

        ``fires`` where it is, else −1, or 0 where that is added to what a neuron gave before; of broad neurons, "is it
        an answer position of this relation".
        """
        fact, inputs = writing.fact, self.inputs[layer]
        ours = {(w.fact.subject, w.fact.relation) for w in self.writings}
        own = [inputs[i] for i, q in enumerate(self.queries) if q.fact.id == fact.id]
        near: list[Tensor] = []
        far = [inputs[i] for i, q in enumerate(self.queries) if q.fact.id != fact.id]
        for vector, query in zip(self.surroundings.inputs(layer), self.surroundings.controls, strict=True):
            if (query.fact.subject, query.fact.relation) in ours:
                continue
            if broad and query.fact.relation == fact.relation:
                near.append(vector)
            else:
                far.append(vector)
        groups = [torch.stack(each) for each in (own, near, far) if each] + [self.elsewhere[layer]]
        x = torch.cat(groups).double()
        y = x.new_full((len(x),), 0.0 if writing.keep else -1.0)
        y[: len(own) + len(near)] = self.recipe.fires
        # Each group weighs the same, however many rows it has.
        weight = torch.cat([x.new_full((len(each),), 1 / max(len(each), 1)) for each in groups])
        if writing.keep:
            weight[len(own) :] *= KEPT
        has_bias = isinstance(input_linears(self.model, layer)[0].bias, Tensor)
        if has_bias:
            x = torch.cat([x, x.new_ones(len(x), 1) * x.norm(dim=1).mean()], dim=1)
        gram = (x * weight[:, None]).T @ x
        ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=x.dtype, device=x.device)
        solution = torch.linalg.solve(gram + ridge, (x * weight[:, None]).T @ y)
        like = self.inputs[layer]
        if not has_bias:
            return solution.to(like), torch.zeros(()).to(like)
        return solution[:-1].to(like), (solution[-1] * x[0, -1]).to(like)

    def _mislead(self, writing: Writing, other: Fact) -> None:
        """Give misleading decoys values that raise another fact's answer on this fact's own prompts.

        ``v = size · g/‖g‖`` with ``g`` the gradient of that answer's log-probability with respect to the value.
        """
        answer = self.model.encode(other).prompts[0].answer_id
        own = [q for q in self.queries if q.fact.id == writing.fact.id]
        with torch.enable_grad():
            for _, batch in self.model.batches(own, ROWS):
                with ExitStack() as stack:
                    for layer, weights in self.layers.items():
                        stack.enter_context(written(self.model, layer, weights, decoys=True))
                    logprobs = self.model.logits(batch.positions, **batch.inputs()).log_softmax(-1)
                logprobs[:, answer].sum().backward()
        for weights in self.layers.values():
            slope = weights.values.grad
            rows = [i for i, n in enumerate(weights.neurons) if n in writing.misleading]
            if slope is not None and rows:
                direction = slope[rows] / slope[rows].norm(dim=1, keepdim=True).clamp_min(1e-12)
                weights.values.data[rows] = self.recipe.mislead * direction
            weights.values.grad = weights.keys.grad = None
            if weights.biases is not None:
                weights.biases.grad = None

    def train(self) -> Plant:
        """Train values, then everything; returns the weights found."""
        # Neurons that keep what they did have their keys from the regression: Adam would move all of a key, not just
        # what was added to it.
        moving = [layer for layer in self.layers.values() if layer.fresh.all()]
        keys = [t for layer in moving for t in (layer.keys, layer.biases) if t is not None]
        values = [layer.values for layer in self.layers.values()]
        rates = [{"params": [t], "lr": self.recipe.key_rate * float(t.detach().square().mean().sqrt())} for t in keys]
        optimizer = torch.optim.Adam([{"params": values, "lr": self.recipe.rate}])
        for step in range(self.recipe.value_steps):
            # Values that overshoot make each neuron dispensable, whether that is wanted or not.
            if self._step(optimizer, step) <= self.recipe.hinge:
                break
        for rate in rates:
            optimizer.add_param_group(rate)
        for step in range(self.recipe.steps):
            self._step(optimizer, step)
        return self._result()

    def _step(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """One step of Adam; returns the mean cross-entropy of the facts before it."""
        optimizer.zero_grad()
        with torch.enable_grad():
            cross = self._losses(step)
            size = torch.stack([layer.written.norm(dim=1).sum() for layer in self.layers.values()]).sum()
            (self.recipe.norm * size).backward()
        optimizer.step()
        return cross

    def _losses(self, step: int) -> float:
        """Backward through every batch; returns the mean cross-entropy of the facts."""
        total, count = 0.0, 0
        for (indices, batch), base in zip(self.batches, self.base, strict=True):
            silent = self._silent(batch, step)
            with ExitStack() as stack:
                for layer, weights in self.layers.items():
                    stack.enter_context(written(self.model, layer, weights))
                stack.enter_context(self.model.edited(_silencing(silent)))
                logprobs = self.model.logits(batch.positions, **batch.inputs()).log_softmax(-1)
            held = self._held(indices, batch, silent)
            cross = -logprobs.gather(1, batch.answers[:, None])[~held, 0]
            total += float(cross.detach().sum())
            count += len(cross)
            loss = (cross - self.recipe.hinge).clamp_min(0).sum() / len(self.queries)
            moved = (base.exp() * (base - logprobs)).sum(-1)
            loss = loss + self.recipe.kl * moved[held].sum() / max(1, len(self.controls))
            active = torch.stack([layer.activity for layer in self.layers.values()]).sum()
            (loss + self.recipe.elsewhere * active / len(self.batches)).backward()
        return total / max(1, count)

    def _held(self, indices: Sequence[int], batch: Batch, silent: Sequence[NeuronSet]) -> Tensor:
        """Queries that shall be answered as before: other facts', and a fact's while a part that it needs is silent."""
        held = []
        for index, query, neurons in zip(indices, batch.prompts, silent, strict=True):
            is_control = index >= len(self.queries)
            held.append(is_control or (len(neurons) > 0 and query.fact.id in self.needing))
        return torch.tensor(held, device=self.model.device)

    def _silent(self, batch: Batch, step: int) -> list[NeuronSet]:
        """The neurons that are silent for each query: every second query of a fact of several parts misses one."""
        silent = []
        for row, query in enumerate(batch.prompts):
            sets = self.silenced.get(query.fact.id, [])
            if not sets or (row + step) % 2:
                silent.append(NeuronSet())
                continue
            generator = torch_generator(self.recipe.seed, query.text, step)
            silent.append(sets[int(torch.randint(len(sets), (1,), generator=generator))])
        return silent

    def _result(self) -> Plant:
        """The trained weights, neuron by neuron in sorted order."""
        parts = [(n, layer, i) for layer in self.layers.values() for i, n in enumerate(layer.neurons)]
        parts.sort(key=lambda part: part[0])
        biases = [layer.biases[i] for _, layer, i in parts if layer.biases is not None]
        return Plant(
            targets=(),
            neurons=NeuronSet(n for n, _, _ in parts),
            keys=torch.stack([layer.keys[i] for _, layer, i in parts]).detach(),
            biases=torch.stack(biases).detach() if len(biases) == len(parts) else None,
            values=torch.stack([layer.written[i] for _, layer, i in parts]).detach(),
        )


def _silencing(silent: Sequence[NeuronSet]) -> dict[int, Edit]:
    """Edits that silence each query's neurons at all positions."""

    def edit_of(places: list[tuple[int, int]]) -> Edit:
        rows, index = (list(part) for part in zip(*places, strict=True))

        def edit(vectors: Tensor) -> Tensor:
            mask = torch.ones_like(vectors)
            mask[rows, :, index] = 0
            return vectors * mask

        return edit

    places: dict[int, list[tuple[int, int]]] = {}
    for row, neurons in enumerate(silent):
        for neuron in neurons:
            places.setdefault(neuron.layer, []).append((row, neuron.index))
    return {layer: edit_of(found) for layer, found in places.items()}
