"""What is no model and no fact is refused in words, wherever a loaded model and facts are expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from kn_attrib import Fact, FactSet, NeuronModel, compare, load_model, refine, score, set_activation, suppress
from kn_attrib.errors import FactError, ModelError, NeuronError
from kn_attrib.evaluation import (
    compare_grid,
    logit_lens,
    parameter_randomisation,
    perplexity,
    plant,
    prompt_types,
    read,
    read_values,
    run_deletion,
    run_injection,
    top_prompts,
    trace,
)
from kn_attrib.models.quiet import no_bars

NEURONS = [(0, 1)]
FACT = Fact("capital:France", "capital", "France", "Paris", ("The capital of France is [Y].",))
CALLS: dict[str, Callable[[Any], object]] = {
    "score": lambda model: score(model, FACT, "activation"),
    "suppress": lambda model: suppress(model, NEURONS).__enter__(),
    "set_activation": lambda model: set_activation(model, NEURONS, 1.0).__enter__(),
    "compare": lambda model: compare(model, [FACT], ["random"]),
    "compare_grid": lambda model: compare_grid(model, [FACT], ["random"], []),
    "read": lambda model: read(model, [FACT], ["random"]),
    "trace": lambda model: trace(model, [FACT], ["random"]),
    "prompt_types": lambda model: prompt_types(model, [FACT], ["random"]),
    "run_deletion": lambda model: run_deletion(model, [FACT], ["random"]),
    "run_injection": lambda model: run_injection(model, [FACT], ["random"]),
    "read_values": read_values,
    "logit_lens": lambda model: logit_lens(model, []),
    "top_prompts": lambda model: top_prompts(model, ["a text"], progress=False),
    "perplexity": lambda model: perplexity(model, ["a text"]),
    "parameter_randomisation": lambda model: parameter_randomisation(model, [FACT], "random"),
    "plant": lambda model: plant(model, FACT, NEURONS, []),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_name_is_no_model(name: str) -> None:
    with pytest.raises(ModelError, match=r"model is 'zoo:x'; expected a loaded model: pass load_model\('zoo:x'\)"):
        CALLS[name]("zoo:x")


def test_a_model_that_is_not_wrapped_is_no_model(tiny: NeuronModel) -> None:
    with pytest.raises(ModelError, match=f"model is {type(tiny.model).__name__}; expected a loaded model"):
        score(tiny.model, FACT, "activation")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["capital:France", ["capital:France"]])
def test_an_id_is_no_fact(given: Any, tiny: NeuronModel) -> None:
    said = r"expected a Fact or several, as load_facts returns them. A fact by its id: load_facts\(…\)\['capital:France"
    with pytest.raises(FactError, match=said):
        score(tiny, given, "activation")
    with pytest.raises(FactError, match=said):
        tiny.answer_probability(given)
    with pytest.raises(FactError, match=r"facts are 3; expected a Fact or several, as load_facts returns them.$"):
        tiny.encode(3)  # type: ignore[arg-type]


def test_facts_may_be_any_sequence(tiny: NeuronModel, facts: FactSet) -> None:
    assert score(tiny, list(facts), "activation").fact_ids == score(tiny, facts, "activation").fact_ids


def test_a_tensor_is_no_scores(tiny: NeuronModel, facts: FactSet) -> None:
    scores = score(tiny, facts[0], "activation")
    with pytest.raises(NeuronError, match="scores are Tensor; expected NeuronScores, as score returns them"):
        refine(scores.values)  # type: ignore[arg-type]


def test_a_name_on_the_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the hub.\nCheck your internet connection")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(ModelError, match=r"^model 'google/gemma' is no folder here, and could not be found or reached"):
        load_model("google/gemma")
    with pytest.raises(
        ModelError, match=r"^unknown model 'gpt2-facts'\. Did you mean 'zoo:gpt2-facts'.*couldn't connect"
    ):
        load_model("gpt2-facts")


@pytest.mark.skipif(not hasattr(transformers_logging, "set_tqdm_hook"), reason="this transformers has no hook for bars")
def test_loading_draws_no_bars_and_leaves_those_of_others_alone(
    saved_bert: str, capfd: pytest.CaptureFixture[str]
) -> None:
    load_model(saved_bert)
    assert capfd.readouterr() == ("", "")
    list(transformers_logging.tqdm(range(2), desc="another"))
    assert "another: 100%" in capfd.readouterr().err


def test_without_a_hook_loading_works_as_before(saved_bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(transformers_logging, "set_tqdm_hook", raising=False)
    with no_bars():
        assert load_model(saved_bert).n_layers == 3
