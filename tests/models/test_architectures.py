"""Conformance: every listed type, as a tiny random model of transformers' own, does what kn_attrib says it does.

``PYTHONPATH=tests python tests/models/test_architectures.py`` prints the table of docs/architectures.md, with which a
test compares it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from architecture_cases import (
    CASES,
    LOOSE,
    NO_DOUBLE,
    ON_PLAIN,
    SMOOTH,
    WIDTH,
    bare,
    batch_of,
    by_hand,
    double_precision,
    gold,
    loaded,
    open_case,
    prompts_of,
    sites_of,
)  # fmt: skip
from kn_attrib import amplify, set_activation, suppress
from kn_attrib.facts.prompts import Batch
from kn_attrib.forward.guards import check_rows
from kn_attrib.forward.plain import PlainForward
from kn_attrib.forward.rows import Rows
from kn_attrib.forward.wave import WaveForward
from kn_attrib.methods import GradientXActivation, IntegratedGradients, LayerIntegratedGradients
from kn_attrib.models.anatomy import gating
from kn_attrib.models.architectures import ARCHITECTURES
from kn_attrib.models.description import describe
from kn_attrib.techniques.residual_stream import exit_early, follow
from kn_attrib.units.heads import Heads

DOCS = Path(__file__).parents[2] / "docs" / "architectures.md"


# -- the checks: each returns its largest error -----------------------------------------------------------------------


def recorded_error(name: str) -> float:
    """Recorded activations against act(fc(x)), or act(gate(x)) · up(x), worked out from the linears before them."""
    case, model = CASES[name], loaded(name)
    kind, end, *starts = case.ffn
    batch = batch_of(model)
    made: dict[str, list[Tensor]] = {start: [] for start in starts}
    named = dict(model.model.named_modules())
    with ExitStack() as stack:
        for site in dict.fromkeys(sites_of(model)):
            for start in starts:
                keep = made[start].append
                module = named[site.removesuffix(end) + start]
                stack.callback(module.register_forward_hook(lambda _, __, out, keep=keep: keep(out)).remove)
        with torch.no_grad():
            bare(model, batch)
    parts = [[out.reshape(*batch.input_ids.shape, -1) for out in made[start]] for start in starts]
    if kind == "fused":
        parts = [[out.chunk(2, -1)[half] for out in parts[0]] for half in (0, 1)]
    act = ACT2FN[case.act]
    vectors = [act(out) for out in parts[0]]
    if len(parts) == 2:
        vectors = [a * up for a, up in zip(vectors, parts[1], strict=True)]
    expected = torch.stack([v[torch.arange(len(batch)), batch.positions] for v in vectors], 1)
    return float((model.record(batch) - expected).abs().max())


def intervention_error(name: str) -> float:
    """Suppress, amplify and set one neuron of each layer at the answer position, against hooks by hand."""
    model = loaded(name)
    batch = batch_of(model)
    clean = model.answers(batch).logprob
    worst = 0.0
    for layer in range(model.n_layers):
        neuron = [(layer, 3)]
        for context, factor, value in (
            (suppress(model, neuron), 0.0, 0.0), (amplify(model, neuron, 2.5), 2.5, 0.0),
            (set_activation(model, neuron, 1.7), 0.0, 1.7),
        ):  # fmt: skip

            def change(vector: Tensor, factor: float = factor, value: float = value) -> None:
                vector[:, 3] = vector[:, 3] * factor + value

            with context:
                found = model.answers(batch).logprob
            worst = max(worst, float((found - gold(by_hand(model, batch, layer, change), batch)).abs().max()))
        assert not torch.equal(found, clean)
    return worst


def completeness_error(name: str) -> float:
    """Largest relative gap of integrated gradients, Gauss-Legendre with 32 nodes."""
    model = open_case(CASES[name], **SMOOTH[name]) if name in SMOOTH else loaded(name)
    found = IntegratedGradients(steps=32, max_rows=4096).score(model, batch_of(model))
    assert found.gap is not None
    assert found.difference is not None
    assert (found.difference != 0).all()
    return float((found.gap / found.difference).abs().max())


def value_vector_error(name: str) -> float:
    """Zeroing neuron i removes exactly a_i · v_i from what the feed-forward block writes."""
    model = loaded(name)
    batch, worst = batch_of(model), 0.0
    activations = model.record(batch)
    for layer in range(model.n_layers):
        for neuron in (0, WIDTH // 2):
            outputs: list[Tensor] = []

            def zero(vector: Tensor, neuron: int = neuron) -> None:
                vector[:, neuron] = 0

            by_hand(model, batch, layer, lambda _: None, outputs)
            by_hand(model, batch, layer, zero, outputs)
            removed = activations[:, layer, neuron, None] * model.value_vectors(layer)[neuron]
            worst = max(worst, float((outputs[0] - outputs[1] - removed).abs().max()))
    return worst


def batch_error(name: str) -> float:
    """Prompts of several lengths in batches against each prompt alone: answers, activations and scores."""
    model = loaded(name)
    prompts, worst = prompts_of(model), 0.0
    scorer = GradientXActivation()
    for indices, batch in model.batches(prompts):
        together = (model.answers(batch).logprob, model.record(batch), scorer.score(model, batch))
        for row, index in enumerate(indices):
            one = Batch((prompts[index],))
            alone = (model.answers(one).logprob, model.record(one), scorer.score(model, one))
            worst = max(worst, *(float((t[row] - a[0]).abs().max()) for t, a in zip(together, alone, strict=True)))
    return worst


CHECKS: dict[str, tuple[Callable[[str], float], float]] = {
    "recorded": (recorded_error, 1e-10),
    "interventions": (intervention_error, 1e-10),
    "completeness": (completeness_error, 1e-6),
    "value vectors": (value_vector_error, 1e-10),
    "batches": (batch_error, 1e-9),
}


def measured(name: str, check: str) -> float:
    with double_precision() if name in NO_DOUBLE or check == "completeness" else nullcontext():
        return CHECKS[check][0](name)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("check", CHECKS)
def test_conformance(name: str, check: str) -> None:
    tolerance = LOOSE.get(name, 0) if check == "recorded" else 0
    error = measured(name, check)
    why = "; does its function have kinks or a norm behind the block? See SMOOTH" if check == "completeness" else ""
    assert error <= max(CHECKS[check][1], tolerance), f"{name}: {check} is off by {error:.1e}{why}"


@pytest.mark.parametrize("name", CASES)
def test_a_norm_behind_the_block_is_said(name: str) -> None:
    model = loaded(name)
    batch = batch_of(model)

    def last_states(factor: float) -> Tensor:
        """Logits with what the last feed-forward block writes times a factor."""
        handle = model.ffn_outputs[-1].register_forward_hook(lambda _, __, output: factor * output)
        try:
            with torch.no_grad():
                return model.logits(batch.positions, **batch.inputs())
        finally:
            handle.remove()

    with double_precision() if name in NO_DOUBLE else nullcontext():
        once, thrice, none = (last_states(factor) for factor in (1.0, 3.0, 0.0))
    # A norm undoes the factor; without one three times as much is written.
    undone = float((thrice - once).norm()) < 0.1 * float((once - none).norm())
    assert undone == model.architecture.post_norm, f"{name}: post_norm is {model.architecture.post_norm}"


@pytest.mark.parametrize("name", CASES)
def test_wave_equals_plain_or_says_why_not(name: str) -> None:
    model = loaded(name)
    batch = batch_of(model)
    with double_precision() if name in NO_DOUBLE else nullcontext():
        reason = check_rows(model, batch)
        assert bool(reason) == (name in ON_PLAIN)
        assert ON_PLAIN.get(name, "") in reason
        if reason:
            return
        activations = model.record(batch)
        for objective in ("prob", "logprob"):
            plain, wave = (forward(model, batch, objective) for forward in (PlainForward, WaveForward))
            rows = Rows.of(activations * torch.linspace(0.2, 1.3, model.n_neurons, dtype=activations.dtype))
            slow = plain(rows.activations, rows.layers, rows.prompts)
            assert torch.allclose(wave(rows.activations, rows.layers, rows.prompts), slow, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_attention_heads_are_found_and_can_be_suppressed(name: str) -> None:
    model = loaded(name)
    with double_precision() if name in NO_DOUBLE else nullcontext():
        view = Heads().views(model, prompts_of(model))["r"]
        batch = batch_of(model)
        assert (view.n_layers, view.n_neurons) == (model.n_layers, 4)
        width = view.site.n_neurons // 4
        for layer in range(view.n_layers):

            def zero(vector: Tensor) -> None:
                vector[:, width : 2 * width] = 0

            with suppress(view, [(layer, 1)]):
                found = view.answers(batch).logprob
            assert torch.allclose(found, gold(by_hand(view, batch, layer, zero), batch), rtol=0, atol=1e-10)
            assert not torch.equal(found, model.answers(batch).logprob)


@pytest.mark.parametrize("name", CASES)
def test_embeddings_put_in_by_hand_give_the_same_answer(name: str) -> None:
    model = loaded(name)
    batch = batch_of(model)
    source = {"source_ids": batch.sources} if batch.sources is not None else {}
    with double_precision() if name in NO_DOUBLE else nullcontext():
        found = model.logits(batch.positions, inputs_embeds=model.embed(batch), **source)
        assert torch.allclose(found, model.logits(batch.positions, **batch.inputs()), atol=1e-10)
        assert LayerIntegratedGradients(steps=2).score(model, batch).values.isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_the_residual_stream_can_be_followed_and_left(name: str) -> None:
    """Norms are understood, each write reaches the answer, and leaving behind the last block answers as ever."""
    model = loaded(name)
    batch = batch_of(model)
    with double_precision() if name in NO_DOUBLE else nullcontext():
        stream = follow(model, batch)
        clean = model.logits(batch.positions, **batch.inputs())
        assert torch.allclose(stream.final.detach(), clean, atol=1e-9)
        assert torch.allclose(exit_early(model, stream, stream.after[-1].detach()), clean, atol=1e-9)
        assert torch.allclose(torch.stack(stream.activations, 1).detach(), model.record(batch), atol=1e-12)
        assert all(effect.abs().amin(0).any() for effect in stream.effects(stream.final[:, 3].sum()))
        assert all(read is not None for read in stream.reads)


def test_every_listed_type_has_a_case() -> None:
    assert {case.type for case in CASES.values()} == set(ARCHITECTURES)
    assert all(loaded(name).architecture.ffn_output == ARCHITECTURES[case.type].ffn_output
               for name, case in CASES.items())  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_description_says_how_vectors_are_made(name: str) -> None:
    case, model = CASES[name], loaded(name)
    with double_precision() if name in NO_DOUBLE else nullcontext():
        told = describe(model)
    made = {"act": "act", "gated": "act × up", "fused": "act × up, fused"}[case.ffn[0]]
    assert told["neuron vector"].split(", tokens")[0].split(", a norm")[0] == made
    assert told["family"] == f"{case.type} ({case.model}), {model.kind}"
    assert told["validation"].startswith("passed")


# -- the table of the documentation -----------------------------------------------------------------------------------


def row_of(name: str) -> list[str]:
    model = loaded(name)
    site, path = model.ffn_outputs[0], sites_of(model)[0]
    row, head = model.architecture, model.model.get_output_embeddings()
    assert head is not None
    stored = "Conv1D" if isinstance(site, Conv1D) else type(site).__name__
    notes = ["one module, a layer is a call"] * row.shared_module + ["tokens flattened"] * row.flattened
    notes += ["a norm follows"] * row.post_norm
    names = {module: n for n, module in model.model.named_modules()}
    return [
        name, type(model.model).__name__, model.kind, f"`{row.ffn_output}`",
        stored + (", bias" if getattr(site, "bias", None) is not None else ""),
        gating(model.model, path, model.n_neurons), f"`{names[head]}`", "; ".join(notes) or "–",
        "plain" if name in ON_PLAIN else "wave", *("✓" for _ in CHECKS),
    ]  # fmt: skip


def table() -> str:
    head = [
        "type",
        "class",
        "kind",
        "feed-forward output linear",
        "stored as",
        "neuron vector",
        "head",
        "remarks",
        "path",
        *CHECKS,
    ]
    lines = [head, ["---"] * len(head), *(row_of(name) for name in CASES)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def test_the_table_in_the_documentation_is_this_one() -> None:
    assert table() in DOCS.read_text(encoding="utf-8"), (
        "run: PYTHONPATH=tests python tests/models/test_architectures.py"
    )


if __name__ == "__main__":
    for each in CASES if "--measure" in sys.argv else ():
        print(each, *(f"{check} {measured(each, check):.1e}" for check in CHECKS), sep="\t")
    if "--measure" not in sys.argv:
        print(table())
