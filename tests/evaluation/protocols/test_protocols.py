"""INJ and DEL: by hand where that can be, and with the weights untouched afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from kn_attrib import Batch, FactSet, NeuronModel, NeuronSet, Scorer, load_facts, load_model, suppress
from kn_attrib.cli import app
from kn_attrib.errors import ConfigError, FactError, MethodError, StoreError
from kn_attrib.evaluation.measure.perplexity import perplexity
from kn_attrib.evaluation.protocols.deletion import recalled, run_deletion
from kn_attrib.evaluation.protocols.finetune import inject
from kn_attrib.evaluation.protocols.injection import run_injection
from kn_attrib.evaluation.protocols.rankings import recall, share_of, top_of_layers, top_of_model
from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.evaluation.protocols.tables import before_deletion, deletion_table
from kn_attrib.interventions.value_vectors import write_values
from kn_attrib.models.answer_loss import answer_loss
from kn_attrib.models.neuron_model import digest_of

SENTENCES = ["the capital of France is Paris .", "Rome is in Italy ."]
TRUTH = NeuronSet([(0, 3), (0, 40), (2, 7)])
SEEN: list[str] = []
Load = Callable[..., NeuronModel]


def state(model: NeuronModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


def same(model: NeuronModel, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in model.model.state_dict().items())


def invoke(*arguments: str) -> str:
    """What a command prints; what it raises is raised."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


# -- shares, rankings, recall ----------------------------------------------------------------------------------------


def test_recall_by_hand() -> None:
    values = torch.tensor([[9.0, 8, 0, 0, 0], [1, 2, 7, 6, 0]])
    truth = NeuronSet([(0, 1), (1, 1), (1, 2)])
    assert top_of_layers(values, 0.4) == NeuronSet([(0, 0), (0, 1), (1, 2), (1, 3)])
    assert recall(top_of_layers(values, 0.4), truth) == pytest.approx(2 / 3)
    assert top_of_model(values, 0.2) == NeuronSet([(0, 0), (0, 1)])
    assert recall(top_of_model(values, 0.2), truth) == pytest.approx(1 / 3)
    assert math.isnan(recall(truth, NeuronSet()))


def test_a_share_is_at_least_one_neuron() -> None:
    assert [share_of(320, share) for share in (0.001, 0.005, 0.01, 1.0)] == [1, 2, 3, 320]
    for wrong in (0.0, -0.1, 1.5, math.nan):
        with pytest.raises(ConfigError, match="above 0 and up to 1"):
            share_of(320, wrong)


def test_layer_0_is_ranked_like_any_other() -> None:
    assert top_of_layers(torch.rand(3, 50), 0.04).layers == {0: 2, 1: 2, 2: 2}
    assert top_of_layers(torch.rand(3, 50), 0.04, first_layer=1).layers == {1: 2, 2: 2}


def test_random_rankings_are_at_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    found = [
        recall(
            top_of_layers(torch.rand(4, 100, generator=generator), 0.05), NeuronSet((i % 4, 7 * i) for i in range(13))
        )
        for _ in range(2000)
    ]
    # 13 draws at 0.05 each: the mean's standard error is below 0.0014.
    assert np.mean(found) == pytest.approx(0.05, abs=0.005)


# -- INJ -------------------------------------------------------------------------------------------------------------


def test_loss_is_the_mean_over_texts_in_nats(tiny: NeuronModel, facts: FactSet) -> None:
    prompts = tiny.encode(facts[0]).prompts
    by_hand = -tiny.answer_probability(facts[0]).log().mean()
    assert answer_loss(tiny, prompts) == pytest.approx(float(by_hand))


def test_injection_learns_the_fact_and_leaves_the_model(tiny: NeuronModel, facts: FactSet) -> None:
    before, prompts = state(tiny), tiny.encode(facts[0]).prompts
    neurons = NeuronSet((layer, 3 * i) for layer in range(3) for i in range(8))
    done = inject(tiny, prompts, neurons, rate=0.1)
    assert done.loss < 0.05 < done.loss_before
    assert done.changed == done.speaking == neurons
    assert same(tiny, before)
    assert not any(parameter.grad is not None for parameter in tiny.model.parameters())
    with write_values(tiny, neurons, done.vectors):
        assert answer_loss(tiny, prompts) == pytest.approx(done.loss)


def test_injection_stops_after_its_steps(tiny: NeuronModel, facts: FactSet) -> None:
    done = inject(tiny, tiny.encode(facts[0]).prompts, TRUTH, rate=1e-6, steps=3)
    assert done.steps == 3
    assert done.loss > 0.05


@pytest.fixture(scope="module")
def inj(session_load_tiny: Load, module_facts: FactSet) -> ProtocolResult:
    return run_injection(
        session_load_tiny("masked"), module_facts, ["random", "ablation"], ratios=(0.3,), information="unknown",
        rate=0.1, known_share=1.01, progress=False,
    )  # fmt: skip


def test_rows_of_an_injection(inj: ProtocolResult) -> None:
    assert inj.manifest["reached"] == {"0.3": 4}
    assert (inj.neurons.groupby("fact").size() == round(0.3 * 3 * 48)).all()
    cells = inj.rows.groupby(["fact", "method", "k", "scope", "truth"]).size()
    assert (cells == 1).all()
    assert len(cells) == 4 * 2 * 3 * 2 * 3  # facts, methods, k, scopes, truths
    assert inj.rows.value.between(0, 1).all()
    at_5 = inj.rows[(inj.rows.k == 0.05) & (inj.rows.scope == "layer")]
    assert (at_5.n_predicted == 3 * 2).all()  # 5 % of 48 is 2.4
    assert at_5.chance.to_numpy() == pytest.approx(6 / 144)


def test_a_protocol_is_kept_on_disk(inj: ProtocolResult, tmp_path: Path) -> None:
    folder = inj.save(f"{tmp_path}/run")
    again = ProtocolResult.load(folder)
    assert again.rows.equals(inj.rows)
    assert again.manifest == inj.manifest
    table = again.table("k", ratio=0.3, scope="layer", truth="all")
    assert list(table.index) == ["random", "ablation"]
    difference = again.against("random", ratio=0.3, k=0.05, scope="layer", truth="all")["ablation"]
    assert difference.n == 4
    assert difference.mean > 0
    with pytest.raises(ConfigError, match="names several cells"):
        again.against("random", ratio=0.3)
    with pytest.raises(ConfigError, match="unknown method 'shuffled'"):
        again.against("shuffled")
    with pytest.raises(ConfigError, match=r"unknown ratio '0\.5'"):
        again.cell(ratio=0.5)


@dataclass(frozen=True)
class Faulty(Scorer):
    """Sees the injected model, then fails."""

    def score(self, model: NeuronModel, batch: Batch) -> torch.Tensor:
        SEEN.append(digest_of(model.model))
        return torch.full((len(batch), model.n_layers, model.n_neurons), torch.nan)


def test_weights_come_back_when_a_method_fails(tiny: NeuronModel, facts: FactSet) -> None:
    before = state(tiny)
    SEEN.clear()
    with pytest.raises(MethodError, match=r"'Faulty' returned .* not finite"):
        run_injection(
            tiny, facts, [Faulty()], ratios=(1.0,), information="unknown", known_share=1.01, rate=0.02, progress=False
        )
    assert len(SEEN) == 1
    assert [tiny.digest] != SEEN  # it was the injected model that was scored
    assert same(tiny, before)


def test_a_relation_with_one_answer_has_no_counterfactual(session_load_tiny: Load, known: FactSet) -> None:
    with pytest.raises(FactError, match=r"whose relation has another answer\): \d known, with texts on both sides"):
        run_injection(session_load_tiny("causal"), known, ["random"], progress=False)


def test_bad_input_of_an_injection(tiny: NeuronModel, facts: FactSet) -> None:
    with pytest.raises(ConfigError, match=r"ratio is 2; expected a share"):
        run_injection(tiny, facts, ["random"], ratios=(2,))
    with pytest.raises(ConfigError, match="ratios is empty"):
        run_injection(tiny, facts, ["random"], ratios=())
    with pytest.raises(MethodError, match=r"unknown method 'randm'.*'random'"):
        run_injection(tiny, facts, ["randm"])
    with pytest.raises(ConfigError, match="unknown information"):
        run_injection(tiny, facts, ["random"], information="new")  # type: ignore[arg-type]
    with pytest.raises(FactError, match=r"counterfactual information \(one it knows, .*: 4 unknown: "):
        run_injection(tiny, facts, ["random"], known_share=1.01)
    with pytest.raises(ConfigError, match="scores other units"):
        run_injection(tiny, facts, ["activation@heads"])


# -- DEL -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known(session_load_tiny: Load, module_facts: FactSet) -> FactSet:
    """The facts with what the causal model answers anyway for answers, so that it knows them."""
    model = session_load_tiny("causal")
    found = []
    for fact in module_facts:
        prompts = model.encode(fact).prompts
        for prompt in prompts:
            top = int(model.answers(Batch((prompt,))).top)
            token = str(model.tokenizer.convert_ids_to_tokens(top))
            answer = token.removeprefix("Ġ")
            if answer.isalpha() and token != answer != fact.subject:
                found.append(replace(fact, answer=answer, prompts=(prompt.text,), held_out=fact.held_out[:1]))
                break
    return FactSet(tuple(found))


@pytest.fixture(scope="module")
def deleted(session_load_tiny: Load, known: FactSet) -> ProtocolResult:
    model = session_load_tiny("causal")
    before = state(model)
    result = run_deletion(
        model, known, ["random", "ablation"], ratios=(0.001, 0.05), text=SENTENCES, negatives=2, progress=False
    )  # fmt: skip
    assert same(model, before)
    return result


def test_deletion_drops_the_wanted_number_in_every_layer(deleted: ProtocolResult) -> None:
    counts = deleted.neurons.groupby(["ratio", "method", "fact", "layer"]).size()
    assert len(counts) == 2 * 2 * len(deleted.facts) * 3  # layer 0 is not left out
    assert (counts.xs(0.001, level="ratio") == 1).all()
    assert (counts.xs(0.05, level="ratio") == 2).all()  # 5 % of 48 is 2.4


def test_layers_are_left_out_on_demand_only(session_load_tiny: Load, known: FactSet) -> None:
    model = session_load_tiny("causal")
    found = run_deletion(model, known, ["random"], ratios=(0.05,), first_layer=1, text=[], progress=False)
    assert set(found.neurons.layer) == {1, 2}
    assert found.manifest["settings"]["first_layer"] == 1
    assert "text" not in set(found.rows.group)


def test_deletion_measures_what_suppression_does(
    session_load_tiny: Load, deleted: ProtocolResult, known: FactSet
) -> None:
    model = session_load_tiny("causal")
    fact = known[0]
    where = "fact == @fact.id and method == 'ablation' and ratio == 0.05"
    value = deleted.rows.query(where).set_index(["group", "metric"]).value
    texts = model.encode(fact).texts
    own = deleted.neurons.query(where)
    with suppress(model, NeuronSet(zip(own.layer.tolist(), own.neuron.tolist(), strict=True)), positions="all"):
        after, text = recalled(model, texts), perplexity(model, SENTENCES)
    assert value["self", "logprob_after"] == pytest.approx(after.logprob)
    assert value["self", "accuracy_after"] == after.accuracy
    assert value["self", "logprob_before"] == pytest.approx(float(model.answer_probability(fact).log().mean()))
    assert value["text", "perplexity_after"] == pytest.approx(text)
    assert value["text", "perplexity_ratio"] == pytest.approx(text / perplexity(model, SENTENCES))
    assert value["self", "logprob_change"] == value["self", "logprob_after"] - value["self", "logprob_before"]
    assert value["self", "logprob_change"] < 0


def test_tables_of_a_deletion(deleted: ProtocolResult) -> None:
    table = deletion_table(deleted, 0.05)
    assert list(table.index) == ["random", "ablation"]
    assert list(table.columns) == [
        "self accuracy",
        "self log p",
        "held-out accuracy",
        "other facts' accuracy",
        "perplexity",
    ]
    assert before_deletion(deleted).startswith("before: self accuracy 100.0%")


def test_bad_input_of_a_deletion(tiny: NeuronModel, facts: FactSet) -> None:
    with pytest.raises(ConfigError, match=r"ratio is 0; expected a share"):
        run_deletion(tiny, facts, ["random"], ratios=(0,))
    with pytest.raises(MethodError, match="unknown method"):
        run_deletion(tiny, facts, ["ablatoin"])
    with pytest.raises(ConfigError, match="first_layer is 3; expected 0 to 2"):
        run_deletion(tiny, facts, ["random"], first_layer=3)
    with pytest.raises(FactError, match=r"no fact that it has memorised: 4 unknown: "):
        run_deletion(tiny, facts, ["random"], known_share=1.01)


# -- command line ----------------------------------------------------------------------------------------------------


def test_both_protocols_run_from_the_command_line(saved_bert: Path, facts_file: Path, tmp_path: Path) -> None:
    common = ["--model", str(saved_bert), "--facts", str(facts_file), "--methods", "random,activation"]
    arguments = ["--information", "unknown", "--ratio", "0.3", "--rate", "0.1", "--steps", "60", "--max-prompts", "1"]
    text = invoke("protocol", "inj", *common, *arguments, "--out", f"{tmp_path}/inj", "--markdown")
    assert "of the neurons: " in text
    assert ProtocolResult.load(tmp_path / "inj").manifest["protocol"] == "inj"
    with pytest.raises(FactError, match="memorised"):
        invoke("protocol", "del", *common, "--out", f"{tmp_path}/del")
    with pytest.raises(ConfigError, match="--ratio is 'x'"):
        invoke("protocol", "del", *common, "--ratio", "x", "--out", f"{tmp_path}/del")


def test_deletion_from_the_command_line(tmp_path: Path) -> None:
    load_facts("world").of("continent")[:4].save(tmp_path / "facts.jsonl")
    (tmp_path / "text.txt").write_text("The capital of France is Paris.\n\nRome is in Italy.\n", encoding="utf-8")
    arguments = [
        "--model",
        "zoo:gpt2-facts",
        "--facts",
        f"{tmp_path}/facts.jsonl",
        "--limit",
        "2",
        "--max-prompts",
        "1",
    ]
    text = invoke(
        "protocol", "del", *arguments, "--methods", "random,activation", "--ratio", "0.005",
        "--text", f"{tmp_path}/text.txt", "--out", f"{tmp_path}/del",
    )  # fmt: skip
    assert "top 0.5% of each layer dropped (before: self accuracy 100.0%" in text
    run = ProtocolResult.load(tmp_path / "del")
    assert run.manifest["sentences"] == ["The capital of France is Paris.", "Rome is in Italy."]
    with pytest.raises(StoreError, match="holds another run"):
        run.save(tmp_path / "del")
    with pytest.raises(ConfigError, match="cannot read the text file"):
        invoke("protocol", "del", *arguments, "--text", "nowhere.txt", "--out", f"{tmp_path}/other")


@pytest.mark.parametrize("name", ["bert-facts", "gpt2-facts", "llama-facts"])
def test_both_protocols_on_the_shipped_models(name: str) -> None:
    model, facts = load_model(f"zoo:{name}"), load_facts("world").of("continent")[:40:8]
    before = state(model)
    methods = ["ablation", "random"]
    inj = run_injection(model, facts, methods, ratios=(0.05,), max_prompts=1, limit=2, progress=False)
    assert inj.manifest["reached"] == {"0.05": 2}
    assert {len(set(group.new_answer) & {old}) for old, group in inj.facts.dropna().groupby("answer")} == {0}
    gone = run_deletion(
        model, facts, methods, ratios=(0.005,), limit=2, max_prompts=2, negatives=2, sentences=3, progress=False
    )  # fmt: skip
    change = gone.cell(ratio=0.005, group="self", metric="logprob_change").set_index("method")["mean"]
    assert change["ablation"] < change["random"]
    assert set(gone.neurons.layer) == set(range(model.n_layers))
    assert same(model, before)


@pytest.mark.parametrize("name", ["inj", "del"])
def test_help_of_each_protocol_shows_an_example(name: str) -> None:
    assert f"Example: kn-attrib protocol {name}" in invoke("protocol", name, "--help")
