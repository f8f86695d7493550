"""Plants: facts written into chosen neurons, kept as the few rows and columns of weights that they change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from kn_attrib.errors import NeuronError, StoreError
from kn_attrib.facts.facts import Fact
from kn_attrib.interventions.value_vectors import write_rows
from kn_attrib.models.anatomy import input_linears
from kn_attrib.models.matrices import input_matrix, value_matrix
from kn_attrib.models.neuron_model import NeuronModel, check_neurons
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.randomness import checked_seed
from kn_attrib.store import atomic_path, read_record, read_tensors, write_json

READABLE = 0o644
KNOWN_AT = 0.5
"""Least mean probability of a planted answer on held-out paraphrases."""
UNKNOWN_AT = 0.1
"""Largest mean probability of the answer before it was planted."""
LEFT_AT = 0.25
"""Largest share of the probability that may be left with the planted neurons silent at the answer position."""
LEAST_AT = 0.1
"""Least that a planted neuron may add, relative to an equal share."""
HARM_AT = 0.02
"""Largest loss of accuracy on other facts."""


@dataclass(frozen=True)
class Check:
    """What was measured on a planted fact; probabilities are means over texts.

    Attributes
    ----------
    before : p(answer) in the base model, held-out paraphrases.
    prompts, held_out : p(answer) with the plant, on the fact's attribution prompts and held-out paraphrases.
    left_prompts, left : share of these that is left with the planted neurons silent at the answer position.
    single : largest share of the held-out probability that any one planted neuron's silence costs.
    least : what the planted neuron that adds least adds to the log-probability, relative to an equal share; each
        neuron's addition is the mean of that to nothing and that to all the others.
    decoys : share of the held-out probability that the decoys' silence costs; 0 without decoys.
    parts : smallest share of it that the silence of one of the parts that are all needed costs; 0 without such parts.
    broad : mean activation of broad neurons at the answers of the relation's other facts, relative to the fact's own;
        0 without such neurons.
    others_before, others : accuracy on other facts' held-out paraphrases, in the base model and with the plant.
    """

    before: float
    prompts: float
    held_out: float
    left_prompts: float
    left: float
    single: float
    least: float
    decoys: float
    parts: float
    broad: float
    others_before: float
    others: float

    @property
    def passed(self) -> bool:
        """The fact is new, known on paraphrases, carried by its neurons at the answer, and other facts are unharmed."""
        known = self.before <= UNKNOWN_AT and min(self.prompts, self.held_out) >= KNOWN_AT
        carried = max(self.left, self.left_prompts) <= LEFT_AT and self.least >= LEAST_AT
        return known and carried and self.others >= self.others_before - HARM_AT


@dataclass(frozen=True)
class Target:
    """One planted fact: what was written, into which neurons, beside which decoys, and what was measured."""

    fact: Fact
    neurons: NeuronSet
    decoys: NeuronSet = field(default_factory=NeuronSet)
    check: Check | None = None

    @property
    def verified(self) -> bool:
        """It was measured, and passed."""
        return self.check is not None and self.check.passed


@dataclass(frozen=True)
class Plant:
    """Facts written into a base model: the changed weights of some neurons, and nothing else.

    Attributes
    ----------
    targets : the facts.
    neurons : whose weights are changed (planted neurons and decoys), in sorted order.
    keys : ``[neuron, path, hidden]``, rows of the linears that make the neuron (one path, two if gated).
    biases : ``[neuron, path]``, or None where these linears have none.
    values : ``[neuron, hidden]``, what the neurons write.
    seed : of all that was drawn; None where a file does not say.
    """

    targets: tuple[Target, ...]
    neurons: NeuronSet
    keys: Tensor
    biases: Tensor | None
    values: Tensor
    seed: int | None = None

    @contextmanager
    def applied(self, model: NeuronModel) -> Iterator[NeuronModel]:
        """While active the model holds the plant; on any exit its weights are what they were, bit by bit.

        Raises
        ------
        NeuronError, ModelError : the plant does not fit the model.
        """
        with write_rows(model, list(self._places(model))):
            yield model

    def _places(self, model: NeuronModel) -> Iterator[tuple[Tensor, list[int], Tensor]]:
        """Parts of weights ``[neuron, …]``, which of their rows change, and into what."""
        chosen = check_neurons(model, self.neurons).neurons
        for layer in sorted({n.layer for n in chosen}):
            mine = [place for place, n in enumerate(chosen) if n.layer == layer]
            rows = [chosen[place].index for place in mine]
            paths = input_linears(model, layer)
            if self.keys.shape[1:] != (len(paths), input_matrix(paths[0]).shape[1]):
                raise NeuronError(
                    f"the plant's keys are {list(self.keys.shape)}; {model.name} takes [neuron, {len(paths)}, "
                    f"{input_matrix(paths[0]).shape[1]}]. Apply a plant to the model it was made for."
                )
            for path, linear in enumerate(paths):
                yield input_matrix(linear), rows, self.keys[mine, path]
                if self.biases is not None and isinstance(linear.bias, Tensor):
                    yield linear.bias, rows, self.biases[mine, path]
            yield value_matrix(model.ffn_outputs[layer]), rows, self.values[mine]

    def save(self, path: str | Path) -> None:
        """Write ``path.safetensors`` (the weights) and ``path.json`` (facts, neurons, what was measured)."""
        save_plants({"plant": self}, path)

    @classmethod
    def load(cls, path: str | Path) -> Plant:
        """Read what `save` wrote.

        Raises
        ------
        StoreError : the files are missing or hold something else.
        """
        found = load_plants(path)[0]
        if "plant" not in found:
            raise StoreError(f"{path} holds {len(found)} plants; read them with load_plants.")
        return found["plant"]


def save_plants(plants: dict[str, Plant], path: str | Path, about: dict[str, Any] | None = None) -> None:
    """Write many plants as ``path.safetensors`` and ``path.json``.

    Parameters
    ----------
    plants : by name.
    about : further facts for the JSON file, e.g. the base model.
    """
    tensors: dict[str, Tensor] = {}
    records: dict[str, Any] = {}
    for name, plant in plants.items():
        parts = {"keys": plant.keys, "values": plant.values, "biases": plant.biases}
        tensors |= {f"{name}.{part}": t.contiguous() for part, t in parts.items() if t is not None}
        targets = [asdict(t) | {"neurons": _pairs(t.neurons), "decoys": _pairs(t.decoys)} for t in plant.targets]
        records[name] = {"neurons": _pairs(plant.neurons), "targets": targets, "seed": plant.seed}
    with atomic_path(_file(path, "safetensors")) as temporary:
        save_file(tensors, temporary)
        temporary.chmod(READABLE)  # safetensors makes private files
    write_json(_file(path, "json"), {"about": about or {}, "plants": records})


def _pairs(neurons: NeuronSet) -> list[list[int]]:
    return [list(neuron) for neuron in neurons]


def load_plants(path: str | Path) -> tuple[dict[str, Plant], dict[str, Any]]:
    """Read what `save_plants` wrote: the plants by name, and what was said about them.

    Raises
    ------
    StoreError : the files are missing or hold something else.
    """
    record = read_record(_file(path, "json"))
    tensors, _ = read_tensors(_file(path, "safetensors"))
    try:
        plants = {name: _plant(name, each, tensors) for name, each in record["plants"].items()}
        return plants, dict(record["about"])
    # ValueError: among others, what neurons and facts say of numbers and texts that are not right.
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"cannot read plants from {path}: {error!r}; expected the files of save_plants.") from error


def _plant(name: str, record: dict[str, Any], tensors: dict[str, Tensor]) -> Plant:
    plant = Plant(
        targets=tuple(_target(each) for each in record["targets"]),
        neurons=NeuronSet(record["neurons"]),
        keys=tensors[f"{name}.keys"],
        biases=tensors.get(f"{name}.biases"),
        values=tensors[f"{name}.values"],
        seed=None if record.get("seed") is None else checked_seed(record["seed"]),
    )
    # Rows of weights belong to neurons by their place.
    if _pairs(plant.neurons) != record["neurons"]:
        raise ValueError(f"the neurons of {name!r} are not in sorted order, each once")
    _check_weights(name, plant)
    return plant


def _check_weights(name: str, plant: Plant) -> None:
    parts = {"keys": plant.keys, "values": plant.values}
    parts |= {} if plant.biases is None else {"biases": plant.biases}
    for part, tensor in parts.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise ValueError(f"the {part} of {name!r} are {tensor.dtype}; expected finite weights")
    if plant.keys.ndim != 3:
        raise ValueError(f"the keys of {name!r} are {list(plant.keys.shape)}; expected [neuron, path, hidden]")
    neurons, (paths, hidden) = len(plant.neurons), plant.keys.shape[1:]
    expected = {"keys": [neurons, paths, hidden], "values": [neurons, hidden], "biases": [neurons, paths]}
    for part, tensor in parts.items():
        if list(tensor.shape) != expected[part]:
            raise ValueError(f"the {part} of {name!r} are {list(tensor.shape)}; expected {expected[part]}")


def _target(record: dict[str, Any]) -> Target:
    return Target(
        fact=Fact(**record["fact"]),
        neurons=NeuronSet(record["neurons"]),
        decoys=NeuronSet(record["decoys"]),
        check=_check(record["check"]),
    )


def _check(record: dict[str, Any] | None) -> Check | None:
    if record is None:
        return None
    strange = [name for name, value in record.items() if type(value) not in (int, float)]
    if strange:
        raise ValueError(f"{strange[0]!r} of a check is {record[strange[0]]!r}; expected a number")
    return Check(**record)


def _file(path: str | Path, suffix: str) -> Path:
    return Path(path).with_name(f"{Path(path).name}.{suffix}")


def rounded(plant: Plant) -> Plant:
    """The plant as it is after being stored in half precision."""
    biases = None if plant.biases is None else plant.biases.half()
    return replace(plant, keys=plant.keys.half(), biases=biases, values=plant.values.half())


def union(sets: list[NeuronSet]) -> NeuronSet:
    """All neurons of some sets.

    Raises
    ------
    NeuronError : a neuron is in two of them.
    """
    every: list[Neuron] = [n for each in sets for n in each]
    twice = next((n for n in every if every.count(n) > 1), None)
    if twice is not None:
        raise NeuronError(f"{twice} is given twice; each planted fact and each decoy needs neurons of its own.")
    return NeuronSet(every)
