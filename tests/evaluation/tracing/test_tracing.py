"""Causal tracing as an experiment: effects by hand, what is left out, files, and the answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from kn_attrib import FactSet, NeuronModel
from kn_attrib.cli import app
from kn_attrib.errors import ConfigError, FactError, KnAttribError, ModelError, StoreError
from kn_attrib.evaluation import Trace, trace
from kn_attrib.evaluation.tracing.answer import pairs
from kn_attrib.evaluation.tracing.roles import roles_of
from kn_attrib.evaluation.tracing.settings import TracingSettings
from kn_attrib.evaluation.tracing.trace import Tracing
from kn_attrib.facts.facts import SLOT
from kn_attrib.interventions.activations import suppress
from kn_attrib.neurons import NeuronSet

Load = Callable[..., NeuronModel]
QUICK: dict[str, Any] = {"known_share": 0.0, "samples": 3, "max_prompts": 2, "k": 2, "progress": False}
METHODS = ["activation", "random"]


@pytest.fixture(scope="module")
def model(session_load_tiny: Load) -> NeuronModel:
    return session_load_tiny("causal")


@pytest.fixture(scope="module")
def found(model: NeuronModel, module_facts: FactSet) -> Trace:
    return trace(model, module_facts, METHODS, severed=("ffn", "attention"), window=2, **QUICK)


def test_every_state_of_every_token_has_a_cell(found: Trace, model: NeuronModel, module_facts: FactSet) -> None:
    assert found.kinds == ["hidden", "ffn", "attention", "hidden_severed_ffn", "hidden_severed_attention"]
    tokens = found.prompts.tokens.sum()
    assert len(found.cells) == tokens * model.n_layers * len(found.kinds)
    assert found.traced == [fact.id for fact in module_facts]
    windows = found.cells[found.cells.kind == "ffn"].drop_duplicates("layer")
    assert windows[["low", "high"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 3]]
    first = found.cells[(found.cells.fact == found.traced[0]) & (found.cells.prompt == 0)]
    assert first.drop_duplicates("token").text.tolist() == ["the", " capital", " of", " France", " is"]


def test_effects_are_differences_of_probabilities(found: Trace) -> None:
    prompts = found.prompts.set_index(["fact", "prompt"])
    low = prompts.p_corrupted.reindex(pd.MultiIndex.from_frame(found.cells[["fact", "prompt"]])).to_numpy()
    assert (found.cells.p - low).to_numpy() == pytest.approx(found.cells.effect.to_numpy())
    assert (found.cells.deviation > 0).any()
    # All of the answer is back where the last state behind the answer is.
    last = found.cells[(found.cells.kind == "hidden") & (found.cells.layer == 2)]
    last = last.sort_values("token").groupby(["fact", "prompt"]).tail(1).set_index(["fact", "prompt"])
    assert last.p.to_numpy() == pytest.approx(prompts.p_clean.reindex(last.index).to_numpy())
    total = found.total_effects.loc["total_effect"]
    assert total["mean"] == pytest.approx((found.prompts.p_clean - found.prompts.p_corrupted).mean())
    assert total.low < total["mean"] < total.high


def test_rows_are_means_over_the_tokens_of_a_role_and_over_prompts(found: Trace) -> None:
    fact = found.traced[1]
    prompts = found.prompts[found.prompts.fact == fact].set_index("prompt")
    cells = found.cells[(found.cells.fact == fact) & (found.cells.kind == "hidden") & (found.cells.layer == 1)]
    by_prompt = []
    for number, own in cells.groupby("prompt"):
        start, end = int(prompts.subject_start[number]), int(prompts.subject_end[number])
        roles = roles_of(start, end, len(own) - 1, len(own))
        by_prompt.append({role: own[own.token.isin(tokens)].effect.mean() for role, tokens in roles.items()})
    expected = pd.DataFrame(by_prompt).mean()
    rows = found.rows[(found.rows.fact == fact) & (found.rows.kind == "hidden") & (found.rows.layer == 1)]
    assert rows.set_index("role").value.to_dict() == pytest.approx(expected.to_dict())
    mean = found.average_effects("hidden")
    mean = mean[(mean.role == "answer") & (mean.layer == 1)].iloc[0]
    some = found.rows[(found.rows.kind == "hidden") & (found.rows.layer == 1) & (found.rows.role == "answer")]
    assert mean["mean"] == pytest.approx(some.value.mean())
    assert mean.n == 4


def test_roles() -> None:
    assert roles_of(2, 5, 8, 9) == {
        "before": [0, 1],
        "first_subject": [2],
        "middle_subject": [3],
        "last_subject": [4],
        "first_after": [5],
        "further": [6, 7],
        "answer": [8],
    }
    # The subject's only token is its first and last; the answer may come right behind it, or before it.
    assert roles_of(0, 1, 1, 2) == {"first_subject": [0], "last_subject": [0], "first_after": [1], "answer": [1]}
    assert roles_of(3, 4, 1, 5) == {
        "before": [0, 2],
        "first_subject": [3],
        "last_subject": [3],
        "first_after": [4],
        "answer": [1],
    }


def test_suppressed_layers_are_what_interventions_give(found: Trace, model: NeuronModel, module_facts: FactSet) -> None:
    curve = found.curves("all neurons", "suppression", "neurons", "answer")
    fact = module_facts[2]
    short = replace(fact, prompts=fact.prompts[:2])
    before = model.answer_probability(short)
    layer = NeuronSet((1, index) for index in range(model.n_neurons))
    with suppress(model, layer):
        after = model.answer_probability(short)
    assert float(curve.loc[[fact.id], 1].iloc[0]) == pytest.approx(float((before - after).mean()))
    for method in METHODS:
        for metric in ("score_share", "refined_share"):
            shares = found.curves(method, metric, "neurons", "answer")
            assert shares.sum(axis=1).to_numpy() == pytest.approx(1)


@pytest.mark.parametrize("corruption", ["uniform", "replace"])
def test_masked_models_and_other_corruptions(session_load_tiny: Load, module_facts: FactSet, corruption: Any) -> None:
    model = session_load_tiny("masked")
    found = trace(model, module_facts, METHODS[1:], kinds=["hidden"], corruption=corruption, **QUICK)
    assert found.kinds == ["hidden"]
    before = found.rows[(found.rows.role == "before") & (found.rows.method == "tracing")]
    assert before.value.abs().max() > 1e-6  # what is left of the subject reads it, too
    assert set(found.prompts.samples) == {3}
    assert found.answer() is None
    assert {pair.metric for pair in pairs(found)} == set()


def test_texts_and_facts_that_cannot_be_traced_are_counted_and_named(model: NeuronModel, module_facts: FactSet) -> None:
    twice = replace(module_facts[0], prompts=("in France the capital of France is [Y].", *module_facts[0].prompts))
    absent = replace(module_facts[1], prompts=("the capital is [Y].",))
    found = trace(model, [twice, absent, *module_facts[2:]], METHODS[1:], kinds=["hidden"], **QUICK)
    assert found.manifest["prompts"] == {"traced": 5, "subject twice": 1, "no subject": 1}
    assert found.manifest["not_traced"] == [absent.id]
    assert found.facts.set_index("fact").status[absent.id] == "no subject"
    assert absent.id not in found.traced
    assert set(found.prompts.status) == {"traced", "subject twice", "no subject"}
    with pytest.raises(FactError, match=r"no fact that can be traced .*'no subject': 1.*is not in what"):
        trace(model, [absent], METHODS[1:], **QUICK)


def test_wrong_answers_are_left_out(model: NeuronModel, module_facts: FactSet) -> None:
    settings = TracingSettings(known_share=1e-9, samples=2, max_prompts=None, k=2, kinds=("hidden",))
    run = Tracing(model, module_facts, ["random"], settings, progress=False)
    chosen = [replace(c, status="used") for c in run.select().candidates]
    run.select = lambda: type(run.selection)(tuple(chosen))  # type: ignore[method-assign]
    found = run.run()
    wrong = found.prompts[found.prompts.status == "answered wrongly"]
    assert len(wrong)
    assert found.cells.merge(wrong, on=["fact", "prompt"]).empty
    never = set(found.prompts.fact) - set(found.prompts[found.prompts.status == "traced"].fact)
    assert set(found.facts[found.facts.status == "answered wrongly"].fact) == never
    if not found.traced:
        assert [title for title, _ in run.tables(found)][-1].startswith("No text was answered rightly")
        with pytest.raises(ConfigError, match="nothing was traced"):
            found.plot()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": 0.0}, "noise is 0.0; expected a positive"),
        ({"noise": math.nan}, "noise is nan; expected a positive"),
        ({"samples": 0}, "samples is 0; expected at least 1"),
        ({"window": 4}, "window is 4; expected 1 to 3, the layers"),
        ({"window": 0}, "window is 0; expected 1 to 3"),
        ({"window": 2, "kinds": ["hidden"]}, "window is of the kinds 'ffn' and 'attention'"),
        ({"kinds": []}, "kinds is empty"),
        ({"kinds": ["mlp"]}, "unknown kind 'mlp'"),
        ({"kinds": ["ffn", "ffn"]}, "a kind is given twice"),
        ({"severed": ["hidden"]}, "unknown severed output 'hidden'"),
        ({"severed": ["ffn"], "kinds": ["ffn"]}, "severed needs the kind 'hidden'"),
        ({"corruption": "salt"}, "unknown corruption 'salt'"),
        ({"corruption": "replace", "noise": 2.0}, "noise has no effect where the subject is replaced"),
        ({"k": 49}, "k is 49; expected 1 to 48"),
    ],
)
def test_bad_settings(model: NeuronModel, module_facts: FactSet, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trace(model, module_facts, METHODS, **(QUICK | changes))


def test_encoder_decoders_are_refused(module_facts: FactSet, model: NeuronModel, monkeypatch: Any) -> None:
    monkeypatch.setattr(model, "kind", "encoder-decoder")
    with pytest.raises(ModelError, match="is an encoder-decoder"):
        trace(model, module_facts, METHODS, **QUICK)


def test_saved_and_read_again(found: Trace, tmp_path: Path) -> None:
    again = Trace.load(found.save(tmp_path / "run"))
    for name in Trace.frames:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(found, name))
    assert again.manifest["window"] == 2
    assert again.manifest["deviation"] > 0
    assert repr(again).startswith("Trace(")
    assert "4 facts" in repr(again)
    assert "restored" in again._repr_html_()
    cells = tmp_path / "run" / "cells.parquet"
    pd.read_parquet(cells).drop(columns="effect").to_parquet(cells)
    with pytest.raises(StoreError, match=r"cells.parquet has no column 'effect'"):
        Trace.load(tmp_path / "run")


def test_figures_and_page(found: Trace, tmp_path: Path) -> None:
    page = found.report(tmp_path)
    names = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert names == {"effects", "layers", "answer", "fact_0", "fact_1", "fact_2", "fact_3"}
    text = page.read_text(encoding="utf-8")
    assert "Does tracing&#39;s peak predict which neurons matter?" in text
    fact = found.traced[0]
    panels = found.plot(fact)
    assert isinstance(panels, np.ndarray)
    assert len(panels) == len(found.kinds)
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == ["the", "_capital", "_of", "_France*", "_is"]
    own = mpl.figure.Figure().subplots()
    assert found.plot(kind="ffn", ax=own) is own
    assert len(own.lines) > 2
    found.plot(fact, "attention", ax=mpl.figure.Figure().subplots())
    for wrong, message in (
        ({"ax": own}, "ax is one panel"),
        ({"kind": "mlp"}, "unknown kind 'mlp'"),
        ({"fact": "x"}, "unknown traced fact 'x'"),
    ):
        with pytest.raises(ConfigError, match=message):
            found.plot(**wrong)


def test_it_goes_on_after_a_stop(model: NeuronModel, module_facts: FactSet, found: Trace, tmp_path: Path) -> None:
    settings = TracingSettings(known_share=0.0, samples=3, max_prompts=2, k=2, severed=("ffn", "attention"), window=2)

    def begun() -> Tracing:
        return Tracing(model, module_facts, METHODS, settings, tmp_path, progress=False)

    first = begun()
    done: list[Any] = []
    measure = first.measure

    def stopped(unit: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(unit)
        return measure(unit)

    first.measure = stopped  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.run()
    again = begun().run()
    for name in Trace.frames:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(found, name))


def test_the_command(facts_file: Path, tmp_path: Path) -> None:
    asked = ["trace", "--limit", "2", "--samples", "2", "--kinds", "hidden,ffn", "--severed", "ffn", "--window", "2"]
    asked += ["--methods", "random", "--relations", "capital", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0
    assert "(total effect; n = 2 facts" in done.output
    assert "Does tracing's peak predict" in done.output
    found = Trace.load(tmp_path / "run")
    assert found.kinds == ["hidden", "ffn", "hidden_severed_ffn"]
    assert found.manifest["window"] == 2
    assert (tmp_path / "run" / "report.html").exists()
    with pytest.raises(KnAttribError, match="unknown kind 'mlp'"):
        CliRunner().invoke(app, [*asked, "--kinds", "mlp", "--overwrite"], catch_exceptions=False)
    assert SLOT in found.prompts.text.iloc[0]
