"""The highest activations of all neurons, against a loop over every context of a corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kn_attrib import NeuronModel, NeuronSet
from kn_attrib.errors import ConfigError, NeuronError, PromptError
from kn_attrib.evaluation import top_prompts
from kn_attrib.evaluation.reading import contexts, reading
from kn_attrib.evaluation.reading.contexts import PLACES, batches_of, encoded, passages
from kn_attrib.evaluation.reading.top_activations import NONE, TopActivations, highest_activations
from kn_attrib.forward.all_tokens import record_all

Load = Callable[..., NeuronModel]
TEXTS = [
    "the capital of France is Paris .",
    "the capital of France is in the country",
    "Rome lies in Italy",
    "people of Berlin",
    "the capital of France is Paris .",
    "Madrid is the capital of Spain . Rome is in Italy .",
    "Italy",
]
K = 4


def plain(model: NeuronModel, texts: list[str], kind: contexts.Contexts) -> tuple[Tensor, list[tuple[int, ...]]]:
    """Activations ``[context, layer, neuron]`` of all contexts, one pass each, and the tokens they consist of."""
    values: dict[tuple[int, ...], Tensor] = {}
    for text in texts:
        ids = model.tokenizer(text)["input_ids"]
        for place in range(len(ids)):
            if kind == "prefixes":
                given, at = ids[: place + 1], place
                if place == 0:
                    continue
            else:
                given, at = [*ids[:place], model.tokenizer.mask_token_id, *ids[place + 1 :]], place
                if ids[place] in model.tokenizer.all_special_ids:
                    continue
            recorded = record_all(model, torch.tensor([at]), input_ids=torch.tensor([given]))
            values.setdefault(tuple(given), recorded[0, :, at])
    return torch.stack(list(values.values())), list(values)


@pytest.mark.parametrize("architecture", ["masked", "causal", "grouped"])
def test_they_are_those_of_a_loop(open_model: Load, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "BUFFER", 12)  # several buffers, between which equal contexts meet again
    model = open_model(architecture, dtype="float64")
    kind: contexts.Contexts = "masks" if architecture == "masked" else "prefixes"
    expected, tokens = plain(model, TEXTS, kind)
    top = top_prompts(model, TEXTS, K, progress=False)
    order = expected.abs().sort(dim=0, descending=True).indices[:K]
    torch.testing.assert_close(top.activations, expected.gather(0, order).permute(1, 2, 0), rtol=1e-12, atol=1e-12)
    # The contexts too: the first of those that are equal, with what follows it.
    first = top.to_frame(NeuronSet([(1, 2)])).iloc[0]
    best = tokens[int(order[0, 1, 2])]
    ids = model.tokenizer(TEXTS[first.text])["input_ids"]
    if kind == "prefixes":
        assert tuple(ids[: first.place + 1]) == best
        assert first.word_id == (ids[first.place + 1] if first.place + 1 < len(ids) else NONE)
    else:
        assert best[first.place] == model.tokenizer.mask_token_id
        assert first.word_id == ids[first.place]
    assert first.activation == pytest.approx(float(expected[order[0, 1, 2], 1, 2]), rel=1e-9)


def test_parts_of_a_corpus_give_what_the_whole_gives(open_model: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model("causal", dtype="float64")
    found = list(passages(model, encoded(model, TEXTS), "prefixes"))
    whole = highest_activations(model, batches_of(found), K)
    monkeypatch.setattr(reading, "PART_TOKENS", 7)
    parts = [highest_activations(model, batches_of(part), K) for part in reading._parts(iter(found))]
    assert len(parts) > 3
    total = parts[0]
    for part in parts[1:]:
        total.merge(torch.arange(len(total.keys)), part.activations, part.numbers, part.keys)
    torch.testing.assert_close(total.activations, whole.activations)
    assert torch.equal(total.keys, whole.keys)


def test_neurons_that_never_fire_have_no_context() -> None:
    top = TopActivations.none(2, 3, torch.zeros(0))
    top.add(torch.tensor([[0.0, -2.0], [0.0, 1.0]]), torch.tensor([5, 6]), torch.tensor([50, 60]))
    assert top.numbers.tolist() == [[NONE] * 3, [5, 6, NONE]]
    assert top.activations.tolist() == [[0, 0, 0], [-2, 1, 0]]
    top.add(torch.tensor([[0.5, -2.0]]), torch.tensor([7]), torch.tensor([50]))  # known already
    assert top.numbers.tolist() == [[7, NONE, NONE], [5, 6, NONE]]


def test_bad_corpora_are_named(open_model: Load, tmp_path: Path) -> None:
    model = open_model("causal")
    with pytest.raises(ConfigError, match="holds no text"):
        top_prompts(model, ["", "  "], progress=False)
    with pytest.raises(ConfigError, match="cannot read the corpus"):
        top_prompts(model, tmp_path / "none.txt", progress=False)
    file = tmp_path / "corpus.txt"
    file.write_bytes(b" \n\n")
    with pytest.raises(ConfigError, match="holds no text"):
        top_prompts(model, file, progress=False)
    file.write_bytes("Zürich is".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"cannot read the corpus .*corpus\.txt: .*expected UTF-8 text"):
        top_prompts(model, file, progress=False)
    with pytest.raises(ConfigError, match=rf"cannot read the corpus .*{tmp_path.name}: .*expected UTF-8 text"):
        top_prompts(model, tmp_path, progress=False)
    with pytest.raises(ConfigError, match=r"contexts is 'masks'.*causal model; say 'prefixes'"):
        top_prompts(model, TEXTS, contexts="masks", progress=False)
    with pytest.raises(PromptError, match=r"text 2 of the corpus .* tokens, but .* reads at most"):
        top_prompts(model, ["Rome", "is " * 40], progress=False)
    with pytest.raises(ConfigError, match=r"contexts is 'prefixes'.*masked model; say 'masks'"):
        top_prompts(open_model("masked"), TEXTS, contexts="prefixes", progress=False)
    with pytest.raises(ConfigError, match="k is 0"):
        top_prompts(model, TEXTS, 0, progress=False)


def test_neurons_that_do_not_exist_are_named(open_model: Load) -> None:
    top = top_prompts(open_model("causal"), TEXTS, K, progress=False)
    layers, width, _ = top.activations.shape
    for layer, index in ((layers, 0), (0, width)):  # the latter is not the first one of the next layer
        with pytest.raises(NeuronError, match=rf"layer={layer}, index={index}\) does not exist; 3 layers × 48 neurons"):
            top.to_frame(NeuronSet([(layer, index)]))


def test_a_corpus_without_context_gives_none(open_model: Load) -> None:
    top = top_prompts(open_model("causal"), ["Italy"], K, progress=False)
    assert top.to_frame().empty
    assert (top.next_words() == NONE).all()


def test_reading_stops_at_so_many_tokens(open_model: Load, tmp_path: Path) -> None:
    model = open_model("causal")
    file = tmp_path / "corpus.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    assert [number for number, _ in encoded(model, file, 9)] == [0, 1]
    top = top_prompts(model, file, K, max_tokens=9, progress=False)
    assert set(top.contexts.text) == {0, 1}
    assert (top.contexts.place < PLACES).all()
