"""Of each argument of what `kn_attrib.evaluation` exports a case that shows its effect: see `argument_tables`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from argument_cases import Case
from argument_tables_of_firing import of_firing
from argument_tables_of_reading import of_experiments, of_reading
from argument_tables_of_tracing import of_tracing
from argument_world import CONTRASTING, SETTINGS, World
from kn_attrib import Comparison, NeuronSet, compare
from kn_attrib.evaluation import (
    Factor,
    Grid,
    Plant,
    PlantedResult,
    Planter,
    ProtocolResult,
    Recipe,
    Writing,
    answers,
    benchmark,
    compare_grid,
    parameter_randomisation,
    perplexity,
    plant,
    run_deletion,
    run_injection,
)  # fmt: skip
from kn_attrib.evaluation.report.figures import figures_of

SENTENCES = ["the capital of France is Paris .", "Rome is in Italy ."]


def evaluation_cases(w: World) -> dict[str, Case]:
    """Cases by the name of what is called."""
    own = {**of_comparisons(w), **of_results(w), **of_plants(w), **of_protocols(w)}
    return {**own, **of_experiments(w), **of_firing(w), **of_reading(w), **of_tracing(w)}


def counted(model: Any, call: Callable[[], Any]) -> Any:
    """What a call returns, and in how many passes through a model."""
    passes: list[int] = []
    hook = model.model.register_forward_hook(lambda *_: passes.append(1))
    try:
        return call(), len(passes)
    finally:
        hook.remove()


def measured(result: Any) -> Any:
    """The tables of a result: its manifest would only repeat what was asked for."""
    return result.tables()


def run_in(w: World, run: Callable[..., Any]) -> Callable[..., Any]:
    """The tables of a run, in how many passes, and what its folder holds in the end; a finished run is there before."""

    def call(model: Any = w.bert, **given: Any) -> Any:
        if model is not w.bert:
            return run(model, **given)
        tables, passes = counted(w.bert, lambda: measured(run(model, **{**SETTINGS, **given})))
        folder = given.get("folder")
        return tables, passes, folder is not None and sorted(path.name for path in Path(folder).iterdir())

    return call


def of_comparisons(w: World) -> dict[str, Case]:
    finished = w.saved(w.comparison, "finished")
    shared = {
        "facts": w.facts, "methods": ["activation"], "budgets": (1,), "interventions": ("suppress",), "limit": 3,
        "controls": (), "dropout": (), "control_facts": 1,
    }  # fmt: skip
    other = {
        "facts": w.facts[:3], "methods": ["random"], "budgets": (2,), "refinement": "eleuther", "factor": 3.0,
        "control_facts": 2, "limit": 2, "max_prompts": 1, "known_share": 1.0, "keep": ("ambiguous",), "seed": 1,
        "max_rows": 1, "normalised": True, "contrast_facts": 0, "interventions": ("mean",), "controls": ("random",),
        "threshold": 0.9, "share": 0.1, "dropout": (0.1,), "plain_text": SENTENCES, "curves": True,
        "folder": w.new("run"), "overwrite": True, "progress": True,
    }  # fmt: skip
    beside: dict[str, dict[str, Any]] = {
        "factor": {"interventions": ("amplify",)}, "normalised": {"limit": None, "facts": w.facts[3:]},
        "keep": {"limit": None}, "contrast_facts": {"methods": [CONTRASTING]},
        "seed": {"controls": ("random",)}, "overwrite": {"folder": finished},
    }  # fmt: skip
    factors = [Factor("threshold", (0.1,))]

    def grid(factors: Any, settings: Any, **given: Any) -> Any:
        return run_in(w, lambda model, **more: _Rows(compare_grid(model, factors=factors, **settings, **more)))(**given)

    of_grid = {
        "facts": w.facts,
        "methods": ["activation"],
        "factors": factors,
        "settings": {"limit": 1, "budgets": (1,)},
    }
    return {
        "compare": Case(run_in(w, compare), {"model": w.bert, **shared}, other, beside),
        "compare_grid": Case(
            grid, {"model": w.bert, **of_grid},
            {
                "facts": w.facts[1:], "methods": ["random"], "factors": [Factor("share", (0.1,))],
                "settings": {"limit": 2, "budgets": (1,)}, "folder": w.new("grid"), "overwrite": True,
                "progress": True,
            },
        ),
        "Factor": Case(Factor, {"name": "threshold", "levels": (0.1,)}, {"name": "share", "levels": (0.2,)}),
        "Factor.parse": Case(Factor.parse, {"text": "threshold=0.1"}, {"text": "threshold=0.2"}),
        "parameter_randomisation": Case(
            lambda options, **given: parameter_randomisation(**given, **options),
            {"model": w.bert, "facts": w.facts[:1], "method": "activation", "options": {}},
            {"facts": w.facts[1:2], "method": "gradient", "seed": 1, "options": {"max_prompts": 0}},
        ),
        "perplexity": Case(perplexity, {"model": w.bert, "texts": SENTENCES}, {"texts": SENTENCES[:1]}),
    }  # fmt: skip


@dataclasses.dataclass
class _Rows:
    """A grid as something with tables."""

    grid: Grid

    def tables(self) -> dict[str, pd.DataFrame]:
        return {"rows": self.grid.rows}


def of_results(w: World) -> dict[str, Case]:
    c, g = w.comparison, w.grid
    cell = {"selection": "refined", "neurons": "method", "intervention": "suppress", "group": "target"}
    kept = w.saved(c, "comparison")

    def named(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda where, **given: call(**given, **where)

    def written(call: Callable[[Any], Any]) -> Callable[..., Any]:
        return lambda path, **given: call(path, **given).exists()

    def report(path: Any, figures: Any = None) -> str:
        return c.report(path, figures).read_text(encoding="utf-8")

    against = {"reference": "random", "where": {**cell, "metric": "relative_change"}}
    amplified = {**against["where"], "intervention": "amplify"}  # type: ignore[dict-item]
    manifest = {**c.manifest, "protocol": "x", "columns": c.columns}
    known = c.rows[c.rows.method.isin(c.methods)]
    protocol = ProtocolResult(known, known, known, manifest)
    text = {"column": "group", "where": {k: v for k, v in against["where"].items() if k != "group"}}  # type: ignore[attr-defined]
    of_text = {"column": "neurons", "percent": False, "where": {**text["where"], "intervention": "amplify"}}  # type: ignore[dict-item]
    planted = PlantedResult.load(w.saved(w.planted(), "planted"))
    drawn = run_deletion(w.bert, w.facts, ["activation"], ratios=(0.1,), known_share=0, limit=2, progress=False)
    there = w.new("there.json")
    there.parent.mkdir(parents=True)
    there.write_text("x", encoding="utf-8")

    def panels(n: int) -> Any:
        return Figure().subplots(1, n)

    return {
        "Comparison.plot": Case(c.plot, {}, {"kind": "amplify", "ax": panels(2)[0]}),
        "Comparison.export_leaderboard": Case(
            c.export_leaderboard, {"path": w.new("a.json")}, {"overwrite": True}, {"overwrite": {"path": there}}
        ),
        "Comparison.export_dataset": Case(
            c.export_dataset, {"folder": w.new()}, {"license": "cc0-1.0", "overwrite": True},
            {"license": {"overwrite": True}, "overwrite": {"folder": kept}},
        ),
        "Comparison.report": Case(
            report, {"path": w.new("a.html"), "figures": dict.fromkeys(figures_of(c), Figure())},
            {"figures": {"x": Figure()}},
        ),
        "ComparisonRows.cell": Case(named(c.cell), {"where": {}}, {"where": {"method": "random"}}),
        "ComparisonRows.table": Case(c.table, {}, {"intervention": "amplify", "selection": "k=1", "metric": "flip"}),
        "ComparisonRows.control_table": Case(c.control_table, {}, {"intervention": "amplify", "metric": "flip"}),
        "Result.against": Case(named(c.against), against, {"reference": "activation", "where": amplified}),
        "Result.cell": Case(named(protocol.cell), {"where": {}}, {"where": {"method": "random"}}),
        "Result.text_table": Case(named(protocol.text_table), text, of_text),
        "Result.load": Case(Comparison.load, {"folder": kept}),
        "Result.save": Case(
            lambda folder, **given: c.save(folder, **given).is_dir(), {"folder": kept}, {"overwrite": True},
            {"overwrite": {}},
        ),
        "ProtocolResult.against": Case(
            named(protocol.against), against, {"reference": "activation", "where": amplified}
        ),
        "ProtocolResult.table": Case(named(protocol.table), text, of_text),
        "ProtocolResult.load": Case(ProtocolResult.load, {"folder": w.saved(protocol, "protocol")}),
        "Grid.effects": Case(g.effects, {}, {"selection": "k=1", "metric": "flip"}),
        "Grid.table": Case(g.table, {}, {"selection": "k=1", "metric": "flip"}),
        "Grid.plot": Case(g.plot, {}, {"selection": "k=1", "axes": panels(7)}),
        "Grid.load": Case(Grid.load, {"folder": w.saved(g, "grid")}),
        "Grid.report": Case(written(g.report), {"path": w.new("b.html")}),
        "Grid.save": Case(lambda folder: g.save(folder).is_dir(), {"folder": w.new("grid")}),
        "PlantedResult.of": Case(planted.of, {"model": planted.models[0]}, {"model": "x"}),
        "PlantedResult.wide": Case(planted.wide, {}, {"metric": "rank", "axis": "k=1"}),
        "PlantedResult.table": Case(planted.table, {}, {"metric": "rank"}),
        "PlantedResult.table_text": Case(planted.table_text, {}, {"metric": "rank"}),
        "PlantedResult.plot": Case(planted.plot, {}, {"metric": "rank", "ax": panels(2)[0]}),
        "ProtocolResult.plot": Case(drawn.plot, {}, {"axes": panels(7)}),
        "PlantedResult.pairwise": Case(
            planted.pairwise, {"reference": "random"}, {"reference": "activation", "metric": "rank"}
        ),
        "answers": Case(answers, {"comparison": c}),
    }  # fmt: skip


def of_plants(w: World) -> dict[str, Case]:
    short = {"value_steps": 3, "steps": 2}
    neurons = NeuronSet([(0, 1), (0, 2)])
    fact = dataclasses.replace(w.fact, id="new", answer="Madrid")
    parts = tuple(NeuronSet([n]) for n in neurons)
    decoys = NeuronSet([(1, 5)])

    def written(recipe: Any = None, others: Any = w.facts, model: Any = w.bert, **given: Any) -> Any:
        """A fact written with short training."""
        writing = Writing(**{"fact": fact, "neurons": neurons, **given})
        return Planter(model, others, recipe or Recipe(**short)).plant([writing])

    def by_recipe(**given: Any) -> Any:
        return written(Recipe(**{**short, "hinge": 0.0, **given}), misleading=decoys, mislead=w.other)

    recipe = {
        "value_steps": 1, "steps": 1, "rate": 0.1, "key_rate": 0.1, "fires": 3.0, "noise": 0.5, "hinge": 9.0,
        "kl": 30.0, "norm": 1.0, "elsewhere": 9.0, "mislead": 9.0, "seed": 1,
    }  # fmt: skip
    made = written()

    def applied(model: Any) -> Any:
        with made.applied(model):
            return model.answer_probability(fact)

    writing = {
        "fact": w.other, "neurons": parts[0], "shares": (1.0, 3.0), "enough": parts, "needed": parts, "broad": parts[0],
        "keep": True, "silent": decoys, "misleading": decoys, "mislead": w.facts[2],
    }  # fmt: skip
    misled = {"misleading": NeuronSet([(1, 6)]), "mislead": w.other}
    folder = w.plants()
    run = {
        "models": ["zoo:gpt2-facts"], "methods": ["random"], "split": "test", "folder": folder, "progress": False,
        "max_prompts": 1, "contrast_facts": 1,
    }  # fmt: skip

    def planted(**given: Any) -> Any:
        result = benchmark(**given)
        return measured(result), result.seed

    return {
        "plant": Case(
            plant, {"model": w.bert, "fact": fact, "neurons": neurons, "others": w.facts, "recipe": Recipe(**short)},
            {
                "fact": dataclasses.replace(w.other, id="new", answer="Madrid"), "neurons": parts[0],
                "others": w.facts[2:], "shares": (1.0, 3.0), "recipe": Recipe(steps=1, value_steps=1), "seed": 3,
            },
        ),
        "Planter": Case(
            lambda **given: written(**given), {"model": w.bert, "others": w.facts},
            {"others": w.facts[2:], "recipe": Recipe(steps=1, value_steps=1)},
        ),
        "Planter.plant": Case(Planter(w.bert, w.facts).plant, {"writings": [Writing(fact, parts[0])]}),
        "Plant.applied": Case(applied, {"model": w.bert}),
        "Plant.load": Case(Plant.load, {"path": w.saved(made, "plant")}),
        "Plant.save": Case(lambda path: (made.save(path), path.parent.is_dir()), {"path": w.new("p")}),
        "Recipe": Case(by_recipe, {}, recipe),
        "Writing": Case(written, {}, writing, {"misleading": misled, "mislead": misled}),
        "benchmark": Case(
            planted, run,
            {
                "models": ["zoo:bert-facts"], "methods": ["activation"], "split": "development", "folder": w.folder,
                "limit": 1, "max_prompts": 2, "contrast_facts": 4, "seed": 1, "progress": True,
            },
            {"max_prompts": {"methods": ["activation"]},
             "contrast_facts": {"methods": ["contrastive_joint_ig(steps=1, layer_steps=1)"]}, "seed": {"split": "all"}},
        ),
    }  # fmt: skip


def of_protocols(w: World) -> dict[str, Case]:
    finished = w.saved(w.comparison, "finished")
    shared: dict[str, Any] = {"model": w.bert, "facts": w.facts, "methods": ["activation"], "limit": 2}
    other = {
        "facts": w.facts[4:], "methods": ["random"], "limit": 1, "max_prompts": 1, "known_share": 1.0, "seed": 1,
        "folder": w.new("run"), "overwrite": True, "progress": True, "fact": w.facts[5].id,
    }  # fmt: skip
    beside: dict[str, dict[str, Any]] = {"overwrite": {"folder": finished}}
    return {
        "run_injection": Case(
            run_in(w, run_injection), {**shared, "ratios": (0.05,), "loss": 90.0, "steps": 2},
            {
                **other, "ratios": (0.1,), "shares": (0.3,), "information": "unknown", "loss": 1e-3, "steps": 1,
                "rate": 0.5, "contrast_facts": 0,
            },
            {
                **beside, "contrast_facts": {"methods": [CONTRASTING]},
                "steps": {"loss": 1e-3}, "rate": {"loss": 1e-3},
            },
        ),
        "run_deletion": Case(
            run_in(w, run_deletion), {**shared, "ratios": (0.05,), "negatives": 1},
            {
                **other, "seed": 3, "ratios": (0.1,), "negatives": 2, "text": SENTENCES, "sentences": 1,
                "first_layer": 1,
            },
            beside,
        ),
    }  # fmt: skip
