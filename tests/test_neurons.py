"""Neurons and sets of neurons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kn_attrib import Neuron, NeuronModel, NeuronSet
from kn_attrib.errors import NeuronError, StoreError
from kn_attrib.models.neuron_model import all_neurons, check_neurons

first = NeuronSet([(1, 5), (0, 3), (1, 5)])
second = NeuronSet([(0, 3), (2, 0)])


def test_a_set_is_sorted_and_holds_each_neuron_once() -> None:
    assert list(first) == [(0, 3), (1, 5)]
    assert len(first) == 2
    assert first == NeuronSet([(1, 5), (0, 3)])
    assert hash(first) == hash(NeuronSet(first))


def test_set_algebra() -> None:
    assert first | second == NeuronSet([(0, 3), (1, 5), (2, 0)])
    assert first & second == NeuronSet([(0, 3)])
    assert first - second == NeuronSet([(1, 5)])
    assert first ^ second == NeuronSet([(1, 5), (2, 0)])
    assert first & second <= first
    assert not first <= second
    assert Neuron(1, 5) in first
    assert (2, 0) not in first


def test_jaccard() -> None:
    assert first.jaccard(second) == pytest.approx(1 / 3)
    assert first.jaccard(NeuronSet()) == 0
    assert NeuronSet().jaccard(NeuronSet()) == 1


def test_layers_are_counted() -> None:
    assert NeuronSet([(0, 1), (0, 2), (4, 0)]).layers == {0: 2, 4: 1}


def test_repr_is_short() -> None:
    assert repr(first) == "NeuronSet({L0:3, L1:5}, n=2)"
    assert repr(NeuronSet((0, i) for i in range(20))).endswith("L0:7, …}, n=20)")


@pytest.mark.parametrize("bad", [5, (1,), (1, 2, 3), "12", ("1", "2"), (1, 2.5), None])
def test_what_is_not_a_pair_of_integers_is_refused(bad: Any) -> None:
    with pytest.raises(NeuronError, match="is not a neuron; expected a pair of integers"):
        NeuronSet([bad])


def test_negative_neurons_are_refused() -> None:
    with pytest.raises(NeuronError, match=r"neuron \(0, -1\) is negative; layers and indices count from 0"):
        NeuronSet([(0, -1)])


def test_numpy_and_torch_integers_are_integers() -> None:
    assert NeuronSet([(np.int64(1), torch.tensor(5)), (0, 3)]) == first  # type: ignore[list-item]


def test_a_saved_set_loads_as_it_was(tmp_path: Path) -> None:
    first.save(tmp_path / "neurons.json")
    assert NeuronSet.load(tmp_path / "neurons.json") == first


@pytest.mark.parametrize("content", ["[]", "{", '{"neurons": [3]}', '{"neurons": [[1]]}', "\xff"])
def test_a_file_that_holds_no_set_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(NeuronError, match=r"bad\.json: not a neuron set .* expected \{'neurons': \[\[layer, index\]"):
        NeuronSet.load(tmp_path / "bad.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NeuronError, match=r"nowhere\.json: not a neuron set"):
        NeuronSet.load(tmp_path / "nowhere.json")


def test_a_set_is_not_saved_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*neurons\.json"):
        first.save(tmp_path / "file" / "neurons.json")


def test_neurons_outside_the_model_are_named(tiny: NeuronModel) -> None:
    assert check_neurons(tiny, first) is first
    for neuron, shown in (((3, 0), r"layer=3, index=0"), ((0, 48), r"layer=0, index=48")):
        with pytest.raises(NeuronError, match=rf"{shown}\) does not exist; .* has 3 layers × 48 neurons"):
            check_neurons(tiny, NeuronSet([neuron]))
    assert len(all_neurons(tiny)) == 3 * 48
