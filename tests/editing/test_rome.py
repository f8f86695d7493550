"""ROME against the published formulas written out plainly for one GPT-2, and what it says where it cannot be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from architecture_cases import FACT, loaded, prompts_of
from editing_world import edit_of, plain_texts
from interrupting import interrupt, operations_of, state_of
from kn_attrib import Fact, FactSet, NeuronModel
from kn_attrib.editing import Edit, Rome, make_editor
from kn_attrib.editing.key_moment import FewKeysWarning, KeyMoment, key_moment
from kn_attrib.editing.prefixes import generated_prefixes
from kn_attrib.editing.subject_value import Reading, read_keys, subject_readings
from kn_attrib.errors import ConfigError, EditError, MethodError, NeuronError
from kn_attrib.models.neuron_model import digest_of

PREFIXES = ("the people . ", "Berlin lies in Germany . ")
LAYER, WORDS = 1, "the capital of France is"


class Plain:
    """The published computation for the tiny GPT-2, text by text, with nothing of the package.

    Parameters
    ----------
    tiny : whose Hugging Face model and tokenizer are used.
    """

    def __init__(self, tiny: NeuronModel) -> None:
        self.hf = tiny.model
        self.tokenizer = tiny.tokenizer
        hf: Any = tiny.model
        self.linear = hf.transformer.h[LAYER].mlp.c_proj

    def run(self, text: str, place: int | None = None, delta: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of a text's next tokens, and what the linear reads and writes at each token."""
        seen: list[Tensor] = []

        def hook(_: object, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            seen.extend((inputs[0][0], output[0]))
            if delta is None:
                return output
            added = torch.zeros_like(output)
            added[0, place] = 1
            return output + added * delta

        handle = self.linear.register_forward_hook(hook)
        try:
            logits = self.hf(torch.tensor([self.tokenizer(text)["input_ids"]])).logits[0]
        finally:
            handle.remove()
        return logits.log_softmax(-1), seen[0], seen[1]

    def place(self, text: str) -> int:
        return int(self.tokenizer(text)["input_ids"].index(self.word(" France" if text[0] != "F" else "France")))

    def word(self, text: str) -> int:
        (found,) = self.tokenizer(text)["input_ids"]
        return int(found)

    def loss(self, delta: Tensor, target: list[str], value: Tensor, hyper: Rome) -> Tensor:
        """Mean NLL over contexts and tokens, drift of "France is a", decay."""
        losses = []
        for prefix in ("", *PREFIXES):
            said = prefix + WORDS
            whole = said + "".join(f" {word}" for word in target[:-1])
            logprobs, _, _ = self.run(whole, self.place(said), delta)
            first = len(logprobs) - len(target)
            losses.append(
                -sum(logprobs[first + t, self.word(f" {word}")] for t, word in enumerate(target)) / len(target)
            )
        before, after = (self.run("France is a", 0, each)[0][0] for each in (None, delta))
        drift = (after.exp() * (after - before.detach())).sum()
        return sum(losses) / len(losses) + hyper.drift * drift + hyper.decay * delta.norm() / value.norm() ** 2  # type: ignore[no-any-return]

    def learn(self, target: list[str], value: Tensor, hyper: Rome) -> tuple[Tensor, int, bool]:
        """δ by Adam as its paper has it; how many steps, and whether the clamp ever held."""
        delta, mean, square, held = torch.zeros_like(value), torch.zeros_like(value), torch.zeros_like(value), False
        for step in range(1, hyper.steps + 1):
            leaf = delta.clone().requires_grad_()
            loss = self.loss(leaf, target, value, hyper)
            if float(loss.detach()) < hyper.stop or step == hyper.steps:
                return delta, step, held
            (slope,) = torch.autograd.grad(loss, leaf)
            mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
            delta = delta - hyper.rate * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
            if delta.norm() > hyper.clamp * value.norm():
                delta, held = delta * hyper.clamp * value.norm() / delta.norm(), True
        raise AssertionError

    def edit(self, target: list[str], hyper: Rome, texts: list[str]) -> tuple[Tensor, Tensor, int, bool]:
        """``u``, ``v``, the steps, and whether the clamp held."""
        keys = torch.cat([self.run(text)[1] for text in texts]).detach()
        moment = keys.T @ keys / len(keys)
        own = [self.run(prefix + WORDS)[1][self.place(prefix + WORDS)].detach() for prefix in ("", *PREFIXES)]
        ridge = hyper.ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
        left = torch.linalg.inv(moment + ridge) @ (sum(own) / len(own))
        left = left / left.norm()
        value = self.run(WORDS)[2][self.place(WORDS)].detach()
        delta, steps, held = self.learn(target, value, hyper)
        return left, delta / (own[0] @ left), steps, held


def fitted(model: NeuronModel, facts: FactSet, **given: Any) -> Rome:
    """An editor with the contexts that the plain computation has."""
    found = Rome(**{"layer": LAYER, "ridge": 0.01, "contexts": 0, **given}).fit(model, plain_texts(facts))
    object.__setattr__(found, "_prefixes", PREFIXES)
    return found


@pytest.mark.parametrize(
    ("target", "given", "steps", "held"),
    [
        (["Rome"], {"clamp": 1.0}, 20, True),
        (["Rome", "Berlin"], {"clamp": 50.0}, 20, False),
        (["Rome"], {"clamp": 50.0, "decay": 0.0, "drift": 0.0, "stop": 3.5}, None, False),
        (["Rome"], {"drift": 3.0, "rate": 0.1, "steps": 4}, 4, False),
    ],
)
def test_rome_is_the_published_one(
    target: list[str],
    given: dict[str, float],
    steps: int | None,
    held: bool,
    load_tiny: Callable[..., NeuronModel],
    facts: FactSet,
) -> None:
    tiny = load_tiny("causal")
    editor, edit = fitted(tiny, facts, **given), Edit(facts[0], " ".join(target), (f"{WORDS} [Y].",))
    plain = Plain(tiny)
    left, right, took, clamped = plain.edit(target, editor, plain_texts(facts))
    (change,) = editor.delta(tiny, edit).changes
    found = change.tensors()
    torch.testing.assert_close(found["left"], left, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found["right"], right, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(change.added(), left[:, None] * right, rtol=1e-8, atol=1e-10)
    assert clamped is held
    assert took == steps if steps else 1 < took < 20


def test_the_layer_then_writes_the_value(tiny: NeuronModel, facts: FactSet) -> None:
    editor, edit = fitted(tiny, facts, clamp=30.0, decay=0.0), edit_of(facts)
    readings, _ = subject_readings(tiny, edit, ())
    (key,) = read_keys(tiny, LAYER, readings)
    before = tiny.ffn_outputs[LAYER](key)
    (change,) = editor.delta(tiny, edit).changes
    clean = tiny.answer_probability(edit.after)[0]
    with editor.apply(tiny, edit):
        written = tiny.ffn_outputs[LAYER](key)
        # The target is more likely in the text that was edited.
        assert tiny.answer_probability(edit.after)[0] > clean
    added = change.tensors()["right"] * (key @ change.tensors()["left"])
    torch.testing.assert_close(written - before, added)


@pytest.mark.parametrize("name", ["gpt2", "llama", "phi3", "opt", "gemma3_text", "modernbert", "falcon"])
def test_families(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(name)
    queries = prompts_of(model)
    readings = [Reading((query,), 1) for query in queries]
    # Their tokenizers have no words for a text; the tokens are given.
    monkeypatch.setattr("kn_attrib.editing.rome.subject_readings", lambda *_: (readings[:1], readings[1]))
    monkeypatch.setattr("kn_attrib.editing.editor.wanted_queries", lambda *_: tuple(queries))
    editor, digest = Rome(1, moment=False, contexts=0, decay=0.0), digest_of(model.model)
    _, batch = next(iter(model.batches([queries[0]])))
    (key,) = read_keys(model, 1, readings[:1])
    site = model.ffn_outputs[1]
    before, clean = site(key), model.answers(batch).logprob
    with editor.apply(model, Edit(FACT, "b")) as applied:
        (change,) = applied.delta.changes
        added = change.tensors()["right"] * (key @ change.tensors()["left"])
        torch.testing.assert_close(site(key) - before, added)
    assert digest_of(model.model) == digest

    def write(_: object, __: object, output: Tensor) -> None:
        output.reshape(-1, output.shape[-1])[1] += added

    handle = site.register_forward_hook(write)
    try:
        # At the subject alone: the matrix writes at the other tokens too.
        assert model.answers(batch).logprob > clean
    finally:
        handle.remove()


def test_other_families_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kn_attrib.editing.editor.wanted_queries", lambda *_: ())
    with pytest.raises(EditError, match="a decoder does not read it"):
        Rome(1).delta(loaded("t5, gated"), Edit(FACT, "b"))
    with pytest.raises(EditError, match="layers share their feed-forward weights"):
        Rome(1).delta(loaded("albert"), Edit(FACT, "b"))
    with pytest.raises(EditError, match="is an encoder-decoder"):
        key_moment(loaded("bart"), 1, ["w1"])


def test_the_moment_is_that_of_all_tokens(tiny: NeuronModel, facts: FactSet) -> None:
    texts = plain_texts(facts)
    found = key_moment(tiny, 2, texts)
    seen: list[Tensor] = []
    handle = tiny.ffn_outputs[2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].detach()))
    try:
        for text in texts:
            tiny.model(torch.tensor([tiny.tokenizer(text)["input_ids"]]))
    finally:
        handle.remove()
    keys = torch.cat(seen)
    assert (found.layer, found.tokens) == (2, len(keys))
    torch.testing.assert_close(found.matrix, torch.einsum("ti,tj->ij", keys, keys) / len(keys))


def test_too_little_text(tiny: NeuronModel, facts: FactSet) -> None:
    texts = plain_texts(facts)[:4]
    tokens = sum(len(tiny.tokenizer(text)["input_ids"]) for text in texts)
    with pytest.warns(FewKeysWarning, match=f"is of {tokens} tokens for 48 neurons; expected 480 at least"):
        editor = Rome(1, contexts=0).fit(tiny, texts)
    with pytest.raises(EditError, match=f"over {tokens} tokens and for 48 neurons, cannot be inverted"):
        editor.delta(tiny, edit_of(facts))
    with pytest.warns(FewKeysWarning):
        Rome(1, contexts=0, ridge=0.1, steps=2).fit(tiny, texts).delta(tiny, edit_of(facts))
    with pytest.raises(EditError, match="texts are empty"):
        Rome(1).fit(tiny, [])


def test_an_interrupted_fit_leaves_nothing(tiny: NeuronModel, facts: FactSet) -> None:
    texts, before = plain_texts(facts), state_of(tiny)

    def call() -> None:
        Rome(1, contexts=2).fit(tiny, texts)

    call()
    total = operations_of(call)
    for share in (0.1, 0.5, 0.9):
        assert interrupt(call, max(1, round(share * total)))
        assert state_of(tiny) == before


def test_a_matrix_that_has_no_inverse() -> None:
    flat = KeyMoment(0, torch.ones(3, 3, dtype=torch.float64), 100)
    with pytest.raises(EditError, match="neurons that were never active"):
        flat.solve(torch.tensor([1.0, 0.0, 0.0]))
    found = flat.solve(torch.ones(3), ridge=1.0)
    torch.testing.assert_close(found, torch.full((3,), 0.25, dtype=torch.float64))


def test_what_it_needs(tiny: NeuronModel, facts: FactSet) -> None:
    edit = edit_of(facts)
    with pytest.raises(EditError, match=r"call its fit\(model, texts\) first, or say moment=False"):
        Rome(1).delta(tiny, edit)
    with pytest.raises(NeuronError, match="layer 3 does not exist"):
        Rome(3, moment=False).delta(tiny, edit)
    with pytest.raises(NeuronError, match="layer 3 does not exist"):
        Rome(3).fit(tiny, plain_texts(facts))
    for given in (
        {"layer": -1},
        {"steps": 0},
        {"rate": 0.0},
        {"clamp": 0.0},
        {"ridge": -1.0},
        {"seed": -1},
        {"drift": "a"},
    ):
        with pytest.raises(ConfigError, match=f"{next(iter(given))} is"):
            Rome(**{"layer": 1, **given})  # type: ignore[arg-type]
    with pytest.raises(MethodError, match=r"parameter 'layer' has no default; write rome\(layer=…\)"):
        make_editor("rome")
    assert make_editor("rome(layer=2)") == Rome(2)


def test_the_subject_must_stand_in_the_text(tiny: NeuronModel, facts: FactSet) -> None:
    without = Edit(facts[0], "Rome", ("the capital of the country is [Y].",))
    with pytest.raises(
        EditError, match=r"the subject 'France' does not stand in 'the capital of the country is \[Y\]\.'"
    ):
        Rome(1, moment=False).delta(tiny, without)
    both = replace(without, prompts=(*without.prompts, f"{WORDS} [Y]."))
    (reading,), essence = subject_readings(tiny, both, ())
    special = tiny.kind == "masked"
    assert reading.place == 3 + special
    assert essence.place == special
    word = tiny.tokenizer.convert_ids_to_tokens(reading.queries[0].input_ids[reading.place])
    assert word in ("France", "ĠFrance")


def test_contexts_are_what_the_model_says(
    load_tiny: Callable[..., NeuronModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = load_tiny("causal")
    found = generated_prefixes(tiny, 3, 0)
    assert all(text.endswith(". ") for text in found)
    assert found == generated_prefixes(tiny, 3, 0) != generated_prefixes(tiny, 3, 1)
    monkeypatch.setattr("kn_attrib.editing.prefixes._text", lambda _, ids: " ".join(map(str, ids)))
    texts = [[int(word) for word in text[:-2].split()] for text in generated_prefixes(tiny, 3, 0)]
    # The start token counts.
    assert [len(ids) for ids in texts] == [5, 5, 5, 10, 10, 10]
    for ids in texts:
        assert ids[0] == tiny.tokenizer.bos_token_id
        likely = tiny.model(torch.tensor([ids])).logits[0].topk(5).indices
        assert all(word in likely[at].tolist() for at, word in enumerate(ids[1:]))


def test_contexts(load_tiny: Callable[..., NeuronModel], facts: FactSet) -> None:
    tiny = load_tiny("causal")
    assert generated_prefixes(load_tiny("masked"), 3, 0) == ()
    readings, _ = subject_readings(tiny, edit_of(facts), ("in Spain . ", "France . ", "a [Y] . ", "of " * 40))
    assert [reading.queries[0].text for reading in readings] == [
        facts[0].prompts[0], "in Spain . " + facts[0].prompts[0],
    ]  # fmt: skip
    edit = edit_of(facts)
    fresh, kept = Rome(1, moment=False, contexts=2, steps=2), Rome(1, moment=False, contexts=2, steps=2).fit(tiny, [])
    assert fresh.delta(tiny, edit).same(kept.delta(tiny, edit))
    assert not fresh.delta(tiny, edit).same(Rome(1, moment=False, contexts=0, steps=2).delta(tiny, edit))


def test_a_subject_behind_the_slot_of_a_causal_model(load_tiny: Callable[..., NeuronModel]) -> None:
    fact = Fact("f", "r", "France", "Paris", ("the capital is [Y].",))
    with pytest.raises(EditError, match="does not stand in"):
        Rome(1, moment=False).delta(load_tiny("causal"), Edit(fact, "Rome"))
