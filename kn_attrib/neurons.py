"""Neurons and sets of neurons."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kn_attrib.display import counted, html_table
from kn_attrib.errors import NeuronError

NAMED = 20
"""Most neurons of a layer that a notebook names."""


class Neuron(NamedTuple):
    """One coordinate of the vector entering a feed-forward block's output linear.

    Parameters
    ----------
    layer : index of the block, from 0.
    index : coordinate, from 0.
    """

    layer: int
    index: int  # type: ignore[assignment]  # hides tuple.index, of no use for a pair


@dataclass(frozen=True)
class NeuronSet:
    """An immutable, sorted set of neurons with the usual set algebra (``| & - ^ <= in``).

    >>> NeuronSet([(3, 17), (0, 5)]) & NeuronSet([(0, 5), (1, 1)])
    NeuronSet({L0:5}, n=1)

    Raises
    ------
    NeuronError : an entry is not a pair of non-negative integers.
    """

    neurons: tuple[Neuron, ...] = ()

    def __init__(self, neurons: Iterable[tuple[int, int]] = ()) -> None:
        object.__setattr__(self, "neurons", tuple(sorted({_neuron(n) for n in neurons})))

    def __iter__(self) -> Iterator[Neuron]:
        return iter(self.neurons)

    def __len__(self) -> int:
        return len(self.neurons)

    def __contains__(self, neuron: object) -> bool:
        return neuron in set(self.neurons)

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(set(self) | set(other))

    def __and__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(set(self) & set(other))

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(set(self) - set(other))

    def __xor__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(set(self) ^ set(other))

    def __le__(self, other: NeuronSet) -> bool:
        return set(self) <= set(other)

    def __repr__(self) -> str:
        shown = ", ".join(f"L{n.layer}:{n.index}" for n in self.neurons[:8])
        return f"NeuronSet({{{shown}{', …' if len(self) > 8 else ''}}}, n={len(self)})"

    def _repr_html_(self) -> str:
        """The neurons of each layer, for notebooks."""
        layers: dict[int, list[int]] = {}
        for neuron in self.neurons:
            layers.setdefault(neuron.layer, []).append(neuron.index)
        caption = f"{counted(len(self), 'neuron')} in {counted(len(layers), 'layer')}" if layers else "no neurons"
        rows = [(layer, len(names), _listed(names)) for layer, names in layers.items()]
        return html_table(caption, rows, ("layer", "number", "neurons"), left=(2,))

    @property
    def layers(self) -> Counter[int]:
        """Number of neurons in each layer."""
        return Counter(n.layer for n in self.neurons)

    def jaccard(self, other: NeuronSet) -> float:
        """``|A ∩ B| / |A ∪ B|``; 1 for two empty sets."""
        union = len(self | other)
        return len(self & other) / union if union else 1.0

    def save(self, path: str | Path) -> None:
        """Write as JSON ``{"neurons": [[layer, index], ...]}``."""
        from kn_attrib.store import write_json

        write_json(Path(path), {"neurons": [list(n) for n in self.neurons]})

    @classmethod
    def load(cls, path: str | Path) -> NeuronSet:
        """Read what `save` wrote.

        Raises
        ------
        NeuronError : the file is missing or holds something else.
        """
        from kn_attrib.store import parsed_json

        try:
            found = parsed_json(Path(path).read_text(encoding="utf-8"))["neurons"]
            if not isinstance(found, list):
                raise TypeError(f"'neurons' is {type(found).__name__}")
            return cls(tuple(pair) for pair in found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NeuronError(
                f"{path}: not a neuron set ({error!r}); expected {{'neurons': [[layer, index], …]}}."
            ) from error


def _listed(names: list[int]) -> str:
    """The first few of a layer."""
    return ", ".join(map(str, names[:NAMED])) + (", …" if len(names) > NAMED else "")


def _neuron(pair: tuple[int, int]) -> Neuron:
    try:
        if any(isinstance(part, bool) for part in pair):
            raise TypeError("true and false are no numbers")
        layer, index = (operator.index(part) for part in pair)
    except (TypeError, ValueError) as error:
        raise NeuronError(f"{pair!r} is not a neuron; expected a pair of integers (layer, index).") from error
    if layer < 0 or index < 0:
        raise NeuronError(f"neuron {(layer, index)} is negative; layers and indices count from 0.")
    return Neuron(layer, index)
