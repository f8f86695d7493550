"""The highest activations of a natural model's neurons, against hooks by hand and one pass for each prefix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kn_attrib import load_model
from kn_attrib.evaluation import top_prompts
from natural import natural_folder

TEXTS = [
    "The lighthouse stands on a rock in the bay. It was built of granite, and its lamp is seen from twenty miles away.",
    "Water boils at a hundred degrees at the level of the sea, and at less on a mountain, where the air is thin.",
    "She has played the violin since she was six; her first teacher was her grandmother, who came from Vienna.",
    "The lighthouse stands on a rock in the bay. It was built by a merchant whose ships had been lost there.",
    "In spring the river floods the meadows, and the herons come back to the reeds to breed.",
    "Most of the city was destroyed by the fire of 1834, but the old market hall and two churches were spared.",
    "The letter reached him in March. He read it twice, folded it, and put it into the drawer with the others. "
    "Then he went out to the stable, saddled the grey mare, and rode to the station, which he had not seen for years.",
    "Iron rusts where there is water and air; paint keeps both away, and zinc gives itself up in place of the iron.",
    "The parliament met on the second Monday of October. Its first act was to lower the tax on salt, and its second to "
    "close the harbour of the capital to foreign ships, of which the merchants of the town complained for years.",
    "A triangle has three sides; the sum of its angles is 180 degrees, whatever their lengths are.",
]
"""Some three hundred tokens of plain text, two of the texts with the same beginning."""
K = 5
SAMPLE = 40
"""Neurons of each layer that are compared."""


def by_hand(model: torch.nn.Module, prefixes: list[tuple[int, ...]], layers: tuple[int, ...]) -> Tensor:
    """What enters ``down_proj`` at the last token, ``[prefix, layer, neuron]``."""
    seen: dict[int, Tensor] = {}

    def keep(layer: int):  # type: ignore[no-untyped-def]
        def hook(_: object, given: tuple[Tensor, ...]) -> None:
            seen[layer] = given[0][0, -1].clone()

        return hook

    blocks = model.model.layers  # type: ignore[union-attr]
    handles = [blocks[layer].mlp.down_proj.register_forward_pre_hook(keep(layer)) for layer in layers]  # type: ignore[union-attr,index]
    rows = []
    try:
        for prefix in prefixes:
            with torch.no_grad():
                model(input_ids=torch.tensor([prefix]))
            rows.append(torch.stack([seen[layer] for layer in layers]))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(rows)


def test_they_are_those_of_a_loop_over_prefixes() -> None:
    model = load_model(natural_folder("smollm2"))
    layers = (0, model.n_layers // 2, model.n_layers - 1)
    ids = [tuple(model.tokenizer(text)["input_ids"]) for text in TEXTS]
    prefixes = list(dict.fromkeys(each[:end] for each in ids for end in range(2, len(each) + 1)))
    assert 200 < len(prefixes) < sum(map(len, ids)) - len(ids)  # some are the beginning of two texts
    expected = by_hand(model.model, prefixes, layers)
    top = top_prompts(model, TEXTS, K, progress=False)
    some = torch.randperm(model.n_neurons, generator=torch.Generator().manual_seed(0))[:SAMPLE]
    for place, layer in enumerate(layers):
        own = expected[:, place, some]
        highest = own.abs().sort(dim=0, descending=True).values[:K].T
        found = top.activations[layer, some]
        torch.testing.assert_close(found.abs(), highest, rtol=2e-4, atol=2e-5)
        # The contexts: the prefix that is named has, by hand, that activation, its sign too; no prefix comes twice.
        for neuron, column in enumerate(own.T):
            contexts = top.contexts.iloc[top.numbers[layer, some[neuron]].tolist()]
            named = [prefixes.index(ids[each.text][: each.place + 1]) for each in contexts.itertuples()]
            assert len(set(named)) == K
            assert column[named].tolist() == pytest.approx(found[neuron].tolist(), rel=2e-4, abs=2e-5)
            follows = [(*ids[each.text], -1)[each.place + 1] for each in contexts.itertuples()]
            assert contexts.word_id.tolist() == follows
