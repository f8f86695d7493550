"""What is to be planted, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from kn_attrib.errors import ConfigError, NeuronError, check_kinds
from kn_attrib.facts.facts import Fact
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.randomness import checked_seed


@dataclass(frozen=True)
class Recipe:
    """How a fact is written.

    Parameters
    ----------
    value_steps, steps : most steps of Adam on the values alone (they end as soon as the hinge is reached), then steps
        on keys, biases and values.
    rate : Adam's rate for values; keys and biases move by ``key_rate`` times their own size.
    fires : what a key gives on the fact's prompts to begin with (on all else −1).
    noise : of what single neurons' keys give around what their common one gives, relative to ``fires``.
    hinge : cross-entropy below which the fact is known well enough.
    kl, norm, elsewhere : weights of KL(base ‖ model) on other facts, of the values' lengths, and of the neurons' mean
        square activity at other positions than the answer's (not of neurons that keep what they did).
    mislead : length of what misleading decoys write.
    seed : of noise and of the other facts that are held.
    """

    value_steps: int = 40
    steps: int = 25
    rate: float = 0.03
    key_rate: float = 0.01
    fires: float = 1.5
    noise: float = 0.1
    hinge: float = 0.1
    kl: float = 3.0
    norm: float = 0.002
    elsewhere: float = 0.1
    mislead: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", checked_seed(self.seed))
        check_kinds(self)


@dataclass(frozen=True)
class Writing:
    """A fact to be written.

    Parameters
    ----------
    fact : its ``prompts`` are trained on, its ``held_out`` texts only measured.
    neurons : where it is written.
    shares : how much of it each neuron writes, in the neurons' order; equal if not given.
    enough : disjoint parts of the neurons each of which shall suffice when the others are silent, so that none matters
        alone; if not given, only all together shall.
    needed : disjoint parts of the neurons without any of which the model shall answer as it did before.
    broad : those of the neurons that fire on every fact of the relation, not on this one alone.
    keep : the neurons go on doing what they did, and the fact comes on top; otherwise that is lost.
    silent : decoys that fire on the fact and write what they always did, which is not its answer.
    misleading : decoys that fire on the fact and write towards another fact's answer, ``mislead``.
    mislead : that fact.

    Raises
    ------
    ConfigError : two that exclude one another, or one that says nothing without another.
    NeuronError : a part, or a broad neuron, is not among the neurons.
    """

    fact: Fact
    neurons: NeuronSet
    shares: tuple[float, ...] = ()
    enough: tuple[NeuronSet, ...] = ()
    needed: tuple[NeuronSet, ...] = ()
    broad: NeuronSet = field(default_factory=NeuronSet)
    keep: bool = False
    silent: NeuronSet = field(default_factory=NeuronSet)
    misleading: NeuronSet = field(default_factory=NeuronSet)
    mislead: Fact | None = None

    def __post_init__(self) -> None:
        if bool(len(self.misleading)) != (self.mislead is not None):
            raise ConfigError(
                f"fact {self.fact.id!r}: misleading decoys and mislead, the fact that they write towards, say nothing "
                "without one another; give both or neither."
            )
        if self.enough and self.needed:
            raise ConfigError(
                f"fact {self.fact.id!r}: enough says that parts of its neurons suffice, needed that they do "
                "not; give one of them."
            )
        for name, parts in (("enough", self.enough), ("needed", self.needed), ("broad", (self.broad,))):
            beyond = [neuron for part in parts for neuron in part if neuron not in self.neurons]
            if beyond:
                raise NeuronError(f"fact {self.fact.id!r}: {beyond[0]} is of {name}, and not one of its neurons.")

    @property
    def decoys(self) -> NeuronSet:
        """Neurons that fire on the fact without writing its answer."""
        return self.silent | self.misleading

    def weights(self) -> dict[Neuron, float]:
        """Each neuron's share, the mean being 1.

        Raises
        ------
        NeuronError : there is no neuron, or another number of shares than of neurons.
        """
        if not len(self.neurons):
            raise NeuronError(f"fact {self.fact.id!r} is given no neuron; name at least one (layer, index).")
        shares = self.shares or (1.0,) * len(self.neurons)
        if len(shares) != len(self.neurons):
            raise NeuronError(f"{len(shares)} shares for {len(self.neurons)} neurons; expected one each.")
        mean = sum(shares) / len(shares)
        return dict(zip(self.neurons, (share / mean for share in shares), strict=True))
