"""Row objectives: memory, adaptive quadrature, screened ablation, precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kn_attrib import NeuronModel, get_method, score
from kn_attrib.errors import ConfigError, MethodError
from kn_attrib.facts.facts import FactSet
from kn_attrib.forward.memory import bytes_per_row
from kn_attrib.forward.row_objective import RowObjective
from kn_attrib.forward.wave import WaveForward
from kn_attrib.methods import Ablation, IntegratedGradients
from kn_attrib.models.answers import objective_value
from kn_attrib.models.compute import Compute
from wave_rows import batches_of, distance, random_rows

Loader = Callable[..., NeuronModel]


# -- memory ------------------------------------------------------------------------------------------------------------


def test_chunks_fit_the_budget_and_do_not_change_the_numbers(
    tiny: NeuronModel, facts: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batches_of(tiny, facts)[0]
    rows = random_rows(tiny, batch)
    forward = WaveForward(tiny, batch)
    whole = RowObjective(forward, 10**12).evaluate(*rows, gradient=True)
    cost = bytes_per_row(forward, gradient=True)
    budget = int(3.5 * float(cost.max()))
    sizes: list[float] = []
    run = RowObjective._one

    def counted(self: RowObjective, part: Tensor, layers: Tensor, *rest: Any) -> Any:
        sizes.append(float(cost[layers].sum()))
        return run(self, part, layers, *rest)

    monkeypatch.setattr(RowObjective, "_one", counted)
    pieces = RowObjective(forward, budget).evaluate(*rows, gradient=True)
    assert len(sizes) > 3
    assert max(sizes) <= budget
    for one, other in zip(whole, pieces, strict=True):
        assert one is not None
        assert other is not None
        assert distance(one, other) < 1e-9


def test_the_estimate_covers_what_is_kept_for_the_backward_pass(tiny: NeuronModel, facts: FactSet) -> None:
    batch = batches_of(tiny, facts)[-1]
    forward = WaveForward(tiny, batch)
    rows, layers, prompts = random_rows(tiny, batch)
    forward(rows, layers, prompts)
    weights = {p.data_ptr() for p in tiny.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward(rows.requires_grad_(), layers, prompts)
    estimate = float(bytes_per_row(forward, gradient=True)[layers].sum())
    assert sum(kept.values()) < estimate < 20 * sum(kept.values())


def test_out_of_memory_halves_the_chunk(tiny: NeuronModel, facts: FactSet, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batches_of(tiny, facts)[0]
    rows = random_rows(tiny, batch)
    forward = WaveForward(tiny, batch)
    whole = RowObjective(forward, 10**12).evaluate(*rows, gradient=True)
    run = WaveForward.__call__

    def small(self: WaveForward, part: Tensor, *rest: Any) -> Tensor:
        if len(part) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, part, *rest)

    monkeypatch.setattr(WaveForward, "__call__", small)
    pieces = RowObjective(forward, 10**12).evaluate(*rows, gradient=True)
    assert whole[1] is not None
    assert pieces[1] is not None
    assert distance(whole[1], pieces[1]) < 1e-9


# -- adaptive quadrature, screens, precision ---------------------------------------------------------------------------


@pytest.mark.parametrize("tolerance", [0.05, 0.01, 0.001])
def test_adaptive_rule_meets_its_tolerance(tiny: NeuronModel, facts: FactSet, tolerance: float) -> None:
    scores = score(tiny, facts, IntegratedGradients(tolerance=tolerance))
    exact = score(tiny, facts, IntegratedGradients(steps=200))
    assert scores.error is not None
    assert scores.capped is not None
    longest = exact.values.norm(dim=-1).amax(-1, keepdim=True)
    errors = (scores.values - exact.values).norm(dim=-1)
    # An estimate is no bound: coarse rules can agree by chance.
    assert (errors <= tolerance * longest).double().mean() > 0.95
    assert (errors <= 3 * tolerance * longest).all()
    assert (scores.error <= 1.05 * tolerance * longest).all()
    assert not scores.capped.any()
    # The estimate is one of the coarser of two rules: it hardly ever falls short of the finer one's error.
    assert (errors <= scores.error + 1e-9 * longest).double().mean() > 0.9


def test_adaptive_scores_of_half_precision_are_sums_of_single_precision(facts: FactSet, load_tiny: Loader) -> None:
    model = load_tiny("masked", "bfloat16")
    _, batch = next(iter(model.batches(model.encode(facts[0]).prompts)))
    found = IntegratedGradients().score(model, batch)
    assert found.values.dtype == torch.float32
    assert found.error is not None
    assert found.error.dtype == torch.float32
    exact = IntegratedGradients().score(load_tiny("masked", "float32"), batch)
    assert distance(found.values, exact.values) < 0.1


def test_adaptive_rule_refines_only_rows_that_need_it(
    tiny: NeuronModel, facts: FactSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[int] = []
    run = RowObjective.evaluate

    def counted(self: RowObjective, rows: Tensor, layers: Tensor, prompts: Tensor, gradient: bool) -> Any:
        evaluated.append(len(rows) * gradient)
        return run(self, rows, layers, prompts, gradient=gradient)

    monkeypatch.setattr(RowObjective, "evaluate", counted)
    n_rows = len(score(tiny, facts, IntegratedGradients(tolerance=0.9)).facts) * tiny.n_layers
    assert sum(evaluated) < 6 * n_rows
    evaluated.clear()
    score(tiny, facts, IntegratedGradients(tolerance=1e-12))
    assert sum(evaluated) > 20 * n_rows


def test_steps_without_a_rule_are_gauss_legendre() -> None:
    assert IntegratedGradients(steps=8) == IntegratedGradients(steps=8, rule="gausslegendre")
    assert IntegratedGradients().rule == "adaptive"
    with pytest.raises(MethodError, match="tolerance is 0"):
        IntegratedGradients(tolerance=0.0)


@pytest.mark.parametrize("objective", ["prob", "logprob", "logit", "logodds"])
def test_screened_ablation_is_exact_where_it_looks(tiny: NeuronModel, facts: FactSet, objective: Any) -> None:
    whole = score(tiny, facts[0], Ablation(objective=objective)).values
    scores = score(tiny, facts[0], Ablation(objective=objective, screen=0.1))
    found = scores.values
    seen = found != 0
    assert (seen.flatten(1).sum(1) <= round(0.1 * whole[0].numel())).all()
    assert torch.allclose(found[seen], whole[seen], rtol=1e-9)
    assert scores.params["screen"] == 0.1
    with pytest.raises(MethodError, match="screen is 0"):
        Ablation(screen=0)


def test_differences_of_probabilities_near_one_keep_their_digits() -> None:
    """In single precision p − p' of two probabilities near 1 has no digits left; between log-odds it has."""
    from kn_attrib.methods.ablation import difference

    logits = torch.tensor([[18.0, 0.0, 1.0], [18.01, 0.0, 1.0], [2.0, 0.0, 1.0], [-200.0, 0.0, 1.0]])
    answers = torch.zeros(4, dtype=torch.long)
    exact = objective_value(logits.double(), answers, "prob")
    odds = objective_value(logits, answers, "logodds")
    for i in range(4):
        for j in range(4):
            truth = float(exact[i] - exact[j])
            assert float(difference(odds[i], odds[j], "prob")) == pytest.approx(truth, rel=1e-3, abs=1e-30)
            truth = float(exact[i].log() - exact[j].log())
            assert float(difference(odds[i], odds[j], "logprob")) == pytest.approx(truth, rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("precision", ["tf32", "medium"])
def test_precision_is_set_for_scoring_only(precision: str, facts: FactSet, load_tiny: Loader) -> None:
    model = load_tiny("masked", "float32")
    expected = score(model, facts, "integrated_gradients")
    model.execution.settings = Compute(precision=precision)
    found = score(model, facts, "integrated_gradients")
    # Where processors have matrix units, "medium" rounds to bfloat16, as its documentation says.
    rough = precision == "medium" and torch.cpu._is_amx_tile_supported()
    assert distance(found.values, expected.values) < (5e-2 if rough else 1e-3)
    assert found.provenance["precision"] == precision
    assert torch.get_float32_matmul_precision() == "highest"


def test_settings_are_checked(load_tiny: Loader) -> None:
    with pytest.raises(ConfigError, match=r"unknown precision 'tf33'.*Did you mean 'tf32'"):
        Compute(precision="tf33")
    with pytest.raises(ConfigError, match="unknown engine 'wave'"):
        Compute(engine="wave")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="memory_budget is 0; expected a positive"):
        Compute(memory_budget=0)
    assert Compute(memory_budget=5).budget(torch.device("cpu")) == 5
    assert Compute().budget(torch.device("cpu")) > 0


def test_methods_do_not_know_which_path_answers() -> None:
    for name in ("integrated_gradients", "ablation"):
        fields = set(get_method(name).defaults())
        assert not fields & {"engine", "wave", "precision", "memory_budget"}
