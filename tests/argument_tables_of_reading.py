"""What the arguments of the experiments' frame, and of reading neurons, may be beside their defaults."""

from __future__ import annotations

import dataclasses
from typing import Any

from matplotlib.figure import Figure

from argument_cases import Case
from argument_world import CONTRASTING, World
from kn_attrib import NeuronSet
from kn_attrib.evaluation import ExperimentSettings, logit_lens, read, read_values, top_prompts
from kn_attrib.evaluation.protocols.deletion import DeletionProtocol, DeletionSettings
from small_results import small_reading

TEXTS = ["the capital of France is Paris .", "Rome lies in Italy"]


def of_reading(w: World) -> dict[str, Case]:
    result = small_reading(w.bert, w.facts)
    corpus = w.new("corpus.txt")
    corpus.parent.mkdir(parents=True)
    corpus.write_text("\n".join(TEXTS), encoding="utf-8")
    prompts, some = w.bert.encode(w.facts).prompts, NeuronSet([(0, 1)])
    top = top_prompts(w.bert, TEXTS, 2, progress=False)

    def tables(**given: Any) -> Any:
        found = read(**{"progress": False, **given})
        return found.tables(), found.manifest["asked"], given.get("folder") is not None

    return {
        "read": Case(
            tables,
            {
                "model": w.bert, "facts": w.facts[:3], "methods": ["activation"], "corpus": str(corpus), "top": 2,
                "known_share": 0.0, "max_tokens": 20, "budget": 2, "limit": 2, "folder": None,
            },
            {
                "facts": w.facts[1:3], "methods": ["random"], "corpus": "", "max_tokens": 4, "contexts": "prefixes",
                "top": 3, "budget": 3, "neurons": "L0:1", "limit": 1, "max_prompts": 1, "known_share": 1.01, "seed": 1,
                "fact": w.facts[2].id,
                "folder": w.new("reading"), "overwrite": True, "progress": True,
            },
            {"overwrite": {"folder": w.saved(result, "finished")}},
        ),
        "top_prompts": Case(
            top_prompts, {"model": w.bert, "corpus": TEXTS, "progress": False},
            {"corpus": TEXTS[:1], "k": 2, "contexts": "prefixes", "max_tokens": 4, "progress": True},
        ),
        "read_values": Case(read_values, {"model": w.bert, "neurons": some}, {"neurons": None, "k": 2, "sign": -1}),
        "logit_lens": Case(logit_lens, {"model": w.bert, "prompts": prompts}, {"prompts": prompts[:1]}),
        "TopPrompts.to_frame": Case(top.to_frame, {}, {"neurons": some}),
        "ReadingResult.plot": Case(result.plot, {}, {"axes": Figure().subplots(1, 3)}),
        "ReadingResult.report": Case(lambda folder: result.report(folder).exists(), {"folder": w.new("page")}),
        "ReadingRows.shown": Case(result.shown, {"fact": w.facts[0].id}, {"fact": w.facts[1].id}),
    }  # fmt: skip


def of_experiments(w: World) -> dict[str, Case]:
    finished = w.saved(w.comparison, "finished")
    short = DeletionSettings(limit=1, known_share=0.0, ratios=(0.05,), negatives=1, sentences=1)

    def ran(**given: Any) -> Any:
        run = DeletionProtocol(**given)
        result = run.run()
        return result.tables(), run.journal.folder is not None

    several = dataclasses.replace(short, limit=4)
    begun = DeletionProtocol(w.bert, w.facts, ["activation", "random", CONTRASTING], several, progress=False)
    done = begun.run()
    prompts = w.pool.prompts

    def costing(method: Any) -> Any:
        with begun.costing(method):
            pass
        return sorted(begun._spent)

    def rows_frame(rows: Any, further: Any) -> Any:
        return begun.rows_frame(rows, *further)

    row = [{"fact": "a", "relation": "b", "value": 1.0, "extra": 2}]
    experiment = {"model": w.bert, "facts": w.facts, "methods": ["activation"], "settings": short, "progress": False}
    return {
        "Experiment": Case(
            ran, experiment,
            {
                "facts": w.facts[4:], "methods": ["random"], "settings": dataclasses.replace(short, ratios=(0.2,)),
                "folder": w.new("run"), "overwrite": True, "progress": True,
            },
            {"overwrite": {"folder": finished}},
        ),
        "Experiment.costing": Case(costing, {"method": "a"}, {"method": "b"}),
        "Experiment.publish": Case(begun.publish, {"result": done, "folder": w.new()}),
        "Experiment.rows_frame": Case(rows_frame, {"rows": {"rows": row}, "further": []}, {"further": ["extra"]}),
        "Experiment.score": Case(
            begun.score, {"method": "random", "prompts": prompts[:1], "others": []},
            {"method": "activation", "prompts": prompts[1:2], "others": prompts[3:]},
            {"others": {"method": "expected_gradients"}},
        ),
        "ExperimentSettings": Case(
            lambda **given: dataclasses.asdict(ExperimentSettings(**given)), {},
            {"limit": 1, "max_prompts": 1, "known_share": 1.0, "seed": 1, "fact": "a"},
        ),
    }  # fmt: skip
