"""Of each argument of what `kn_attrib` exports a case that shows its effect: see `arguments/test_python.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from argument_cases import Case
from argument_tables_of_editing import of_editing
from argument_world import World
from conftest import bert_tokenizer, gpt2_tokenizer, tiny_gpt2
from kn_attrib import (
    Batch,
    Fact,
    FactSet,
    Neuron,
    NeuronModel,
    NeuronScores,
    NeuronSet,
    Refinement,
    amplify,
    facts_from_templates,
    get_method,
    list_methods,
    load_facts,
    load_model,
    load_plugin,
    refine,
    refine_all,
    register,
    score,
    set_activation,
    suppress,
)  # fmt: skip
from kn_attrib.methods import Activation
from kn_attrib.models.compute import Compute
from kn_attrib.scoring.registry import _METHODS

PLUGIN = """
from kn_attrib import register
from kn_attrib.methods import Activation

@register({!r})
class One(Activation):
    pass
"""


def package_cases(w: World) -> dict[str, Case]:
    """Cases by the name of what is called."""
    return {**of_facts(w), **of_models(w), **of_interventions(w), **of_scores(w), **of_methods(w), **of_editing(w)}


def written(save: Callable[[Path], None]) -> Callable[[Path], bool]:
    """Whether there is a file where something was saved."""

    def made(path: Path) -> bool:
        save(path)
        return path.is_file()

    return made


def of_facts(w: World) -> dict[str, Case]:
    fact = {f.name: getattr(w.fact, f.name) for f in dataclasses.fields(Fact)}
    changed = {"prompts": ("[Y] is.",), "held_out": (), "alternatives": ("Rome",)}
    templates = {"relation": "r", "triples": [("a", "b")], "prompts": ["[X] [Y]"]}
    return {
        "Fact": Case(Fact, fact, {name: changed.get(name, "else") for name in fact}),
        "FactSet": Case(FactSet, {"facts": w.facts.facts}, {"facts": w.facts.facts[:1]}),
        "FactSet.of": Case(
            lambda relations: w.facts.of(*relations), {"relations": ["people"]}, {"relations": ["capital"]},
        ),
        "FactSet.save": Case(written(w.facts.save), {"path": w.new("facts.jsonl")}),
        "FactSet.spread": Case(w.facts.spread, {"limit": 1}, {"limit": 2}),
        "FactSet.where": Case(w.facts.where, {"condition": bool}, {"condition": lambda fact: fact is w.fact}),
        "facts_from_templates": Case(
            facts_from_templates, templates,
            {"relation": "s", "triples": [("c", "b")], "prompts": ["[X], [Y]"], "held_out": ["[X]: [Y]"]},
        ),
        "load_facts": Case(load_facts, {"source": w.facts}, {"source": w.saved(w.facts[:1], "facts.jsonl")}),
    }  # fmt: skip


def of_models(w: World) -> dict[str, Case]:
    chat = gpt2_tokenizer()
    chat.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %} the"
    pair = tiny_gpt2(), chat
    batch, inputs = w.batch, {"input_ids": w.batch.input_ids}
    moved = batch.positions * 0

    def encoding(**given: Any) -> Any:
        model = NeuronModel(**given)
        return model, model.encode(w.fact)

    def running(positions: torch.Tensor) -> Any:
        with w.bert.running(positions):
            return w.bert.positions, w.bert.at_answer(torch.arange(80.0).view(len(batch), -1, 1)[: len(positions)])

    def edited(edits: Any) -> Any:
        with w.bert.edited(edits):
            return w.bert.record(batch)

    def run(name: str) -> Callable[..., Any]:
        return lambda positions, inputs, **more: getattr(w.bert, name)(positions, **more, **inputs)

    def at_answer(vectors: Any) -> Any:
        with w.bert.running(batch.positions):
            return w.bert.at_answer(vectors)

    rows = {"positions": batch.positions, "inputs": inputs}
    others = {"positions": moved, "inputs": {"input_ids": batch.input_ids + 1}}
    fact = {"fact": w.fact}
    return {
        "load_model": Case(
            load_model, {"source": pair},
            {
                "source": (tiny_gpt2(1), chat), "dtype": "float64", "device": "meta", "precision": "medium",
                "ffn_pattern": "transformer.h.{i}.attn.c_proj", "memory_budget": 2**30, "engine": "plain",
                "products": "pytorch", "chat": True,
            },
        ),
        "NeuronModel": Case(
            encoding, {"model": pair[0], "tokenizer": chat, "kind": "causal", "name": "a"},
            {
                "model": tiny_gpt2(1), "tokenizer": bert_tokenizer(), "kind": "masked", "name": "b",
                "ffn_pattern": "transformer.h.{i}.attn.c_proj",
                "compute": Compute("plain"), "chat": True,
            },
        ),
        "NeuronModel.answer_probability": Case(
            w.bert.answer_probability, fact, {"fact": w.other, "split": "held_out", "normalised": True},
            {"normalised": {"fact": w.facts[3]}},
        ),
        "NeuronModel.answers": Case(w.bert.answers, {"batch": batch}),
        "NeuronModel.at_answer": Case(at_answer, {"vectors": torch.zeros(1, 9, 2)}),
        "NeuronModel.batches": Case(
            lambda **given: list(w.bert.batches(**given)), {"prompts": w.pool.prompts},
            {"prompts": w.pool.prompts[:2], "max_prompts": 1},
        ),
        "NeuronModel.edited": Case(edited, {"edits": {}}, {"edits": {0: torch.zeros_like}}),
        "NeuronModel.embed": Case(w.bert.embed, {"batch": batch}),
        "NeuronModel.encode": Case(w.bert.encode, {"facts": w.facts}, {"facts": w.fact, "split": "held_out"}),
        "NeuronModel.final": Case(run("final"), rows, others),
        "NeuronModel.logits": Case(run("logits"), rows, others),
        "NeuronModel.gold": Case(
            run("gold"), {**rows, "answers": batch.answers}, {**others, "answers": batch.answers - 1}
        ),
        "NeuronModel.record": Case(w.bert.record, {"batch": batch}),
        "NeuronModel.running": Case(running, {"positions": batch.positions}, {"positions": moved}),
        "NeuronModel.value_vectors": Case(w.bert.value_vectors, {"layer": 0}, {"layer": 1}),
        "Batch": Case(
            lambda **given: Batch(**given).input_ids.device, {"prompts": batch.prompts},
            {"device": torch.device("meta")},
        ),
        "Batch.inputs": Case(batch.inputs, {}, {"rows": torch.tensor([0, 0])}),
    }  # fmt: skip


def of_interventions(w: World) -> dict[str, Case]:
    def answer(change: Any) -> Callable[..., Any]:
        def call(**given: Any) -> Any:
            with change(**given):
                return given["model"].answer_probability(w.fact)

        return call

    neurons = [(0, 1), (0, 2), (1, 3)]
    given = {"model": w.bert, "neurons": neurons}
    other = {"neurons": neurons[:2], "positions": "all"}
    return {
        "suppress": Case(answer(suppress), given, other),
        "amplify": Case(answer(amplify), given, {**other, "factor": 3.0}),
        "set_activation": Case(answer(set_activation), {**given, "value": 1.0}, {**other, "value": 2.0}),
    }


def of_scores(w: World) -> dict[str, Case]:
    pair, whole = w.scores, Refinement(threshold=0.5, share=0.5)
    shares = torch.tensor([[2 / 3, 1 / 3]])
    often = Refinement(threshold=0.5, share=0.1, min_prompts=2)
    settings: dict[str, Any] = {
        "threshold": 0.9, "share": 0.1, "strict": True, "min_prompts": 3, "adaptive": True, "percentile": 50.0, "k": 3,
    }  # fmt: skip
    beside = {"strict": {"share": 1 / 3}, "min_prompts": {"share": 0.1}, "adaptive": {"share": 0.1, "threshold": 0.05}}

    def refinement(**given: Any) -> Any:
        return refine_all(w.one, Refinement(**given))

    def preset(name: str, changes: Any) -> Any:
        return Refinement.preset(name, **changes)

    def scored(**given: Any) -> Any:
        done: list[int] = []
        found = score(w.bert, **{"progress": done.append, **given})
        return found, done

    return {
        "Refinement": Case(refinement, {}, settings, beside),
        "Refinement.keep": Case(often.keep, {"shares": shares, "n_prompts": 3}, {"n_prompts": 6}),
        "Refinement.preset": Case(
            preset, {"name": "dai2022", "changes": {}},
            {"name": "eleuther", "changes": {"share": 0.1}},
        ),
        "Refinement.shares": Case(whole.shares, {"values": w.one.values}),
        "refine": Case(
            refine, {"scores": w.one},
            {**settings, "scores": pair[[3]], "preset": "eleuther", "negatives": pair.for_fact(w.other.id)}, beside,
        ),
        "refine_all": Case(refine_all, {"scores": pair, "settings": whole}, {"settings": Refinement(k=1)}),
        "score": Case(
            lambda model=w.bert, **given: scored(**given) if model is w.bert else score(model, **given),
            {"model": w.bert, "fact_or_facts": w.fact, "method": "activation"},
            {
                "fact_or_facts": w.other, "method": "random", "max_prompts": 1, "progress": None, "keep_tokens": True,
                "contrast": w.facts[1:],
            },
            {"max_prompts": {"fact_or_facts": w.facts[:2]}},
        ),
        "NeuronScores.for_fact": Case(pair.for_fact, {"fact": w.fact.id}, {"fact": w.other.id}),
        "NeuronScores.load": Case(NeuronScores.load, {"path": w.saved(pair, "a.safetensors")}),
        "NeuronScores.of_tokens": Case(pair.of_tokens, {"row": 0}, {"row": 1}),
        "NeuronScores.save": Case(written(pair.save), {"path": w.new("b.safetensors")}),
        "NeuronScores.to_frame": Case(pair.to_frame, {}, {"k": 2}),
        "NeuronScores.top_k": Case(pair.top_k, {"k": 1}, {"k": 2}),
        "Neuron": Case(Neuron, {"layer": 0, "index": 1}, {"layer": 1, "index": 2}),
        "NeuronSet": Case(NeuronSet, {}, {"neurons": [(0, 1)]}),
        "NeuronSet.jaccard": Case(NeuronSet([(0, 1)]).jaccard, {"other": NeuronSet()}),
        "NeuronSet.load": Case(NeuronSet.load, {"path": w.saved(NeuronSet(), "a.json")}),
        "NeuronSet.save": Case(written(NeuronSet().save), {"path": w.new("b.json")}),
        "Pool.of": Case(w.pool.of, {"fact": w.fact}),
        "Pool.contrast": Case(w.pool.contrast, {"fact": w.fact}, {"fact": w.other, "same_relation": True}),
        "Pool.classes": Case(w.pool.classes, {"fact": w.fact, "label": "fact"}, {"label": "answer"}),
    }  # fmt: skip


def of_methods(w: World) -> dict[str, Case]:
    files = [w.new(f"{name}.py") for name in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        file.write_text(PLUGIN.format(file.stem), encoding="utf-8")

    def registered(call: Callable[..., Any]) -> Callable[..., Any]:
        """What is registered by a call; it is forgotten again."""

        def made(**given: Any) -> Any:
            before = dict(_METHODS)
            try:
                return call(**given), sorted(set(_METHODS) - set(before))
            finally:
                _METHODS.clear()
                _METHODS.update(before)

        return made

    def decorated(name: str, aliases: tuple[str, ...]) -> None:
        register(name, *aliases)(dataclasses.dataclass(frozen=True)(type("Mine", (Activation,), {})))

    return {
        "register": Case(registered(decorated), {"name": "a", "aliases": ()}, {"name": "b", "aliases": ("c",)}),
        "load_plugin": Case(registered(load_plugin), {"path": files[0]}, {"path": files[1]}),
        "get_method": Case(get_method, {"name": "random"}, {"name": "ablation"}),
        "list_methods": Case(list_methods, {}, {"aliases": True}),
        "Scorer.preset": Case(get_method("integrated_gradients").preset, {"name": "dai2022"}, {"name": "x"}),
    }
