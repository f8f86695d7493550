"""A relation's shared neurons, which Dai et al. leave out of an edit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from kn_attrib.errors import ConfigError
from kn_attrib.neurons import NeuronSet

SHARED = 0.1
"""Share of a relation's facts beyond which a neuron belongs to the relation rather than to a fact."""


def unshared_sets(
    sets: Mapping[str, NeuronSet], relations: Mapping[str, str], share: float = SHARED
) -> dict[str, NeuronSet]:
    """Every fact's neurons without those that many other facts of its relation have as well: fact id -> neurons.

    Differs from the published code, which counts the fact that is edited twice over: here a neuron goes if more than
    ``share`` of the relation's *other* facts have it.

    Parameters
    ----------
    sets : neurons of facts, as of `refine_all`.
    relations : each fact's relation.
    share : from 0 to 1.

    Raises
    ------
    ConfigError : the share is out of range.

    Reference
    ---------
    Dai et al. 2022, arXiv 2104.08696, section 5.1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share is {share}; expected a number from 0 to 1.")
    facts = Counter(relations[fact] for fact in sets)
    having = Counter((relations[fact], neuron) for fact, neurons in sets.items() for neuron in neurons)
    found = {}
    for fact, neurons in sets.items():
        relation = relations[fact]
        most = share * (facts[relation] - 1)
        found[fact] = NeuronSet(neuron for neuron in neurons if having[relation, neuron] - 1 <= most)
    return found
