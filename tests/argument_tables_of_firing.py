"""What the arguments of activation by kind of text may be beside their defaults."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from argument_cases import Case
from argument_world import World
from kn_attrib.evaluation import Texts, load_texts, prompt_types
from small_results import FIRING_TEXTS, small_prompt_types


def of_firing(w: World) -> dict[str, Case]:
    path = w.new("texts.txt")
    path.parent.mkdir(parents=True)
    result = small_prompt_types(w.bert, w.facts, path)
    texts = Texts(FIRING_TEXTS)

    def tables(**given: Any) -> Any:
        return prompt_types(**{"progress": False, **given}).tables(), given.get("folder") is not None

    return {
        "prompt_types": Case(
            tables,
            {
                "model": w.bert, "facts": w.facts[:3], "methods": ["activation"], "texts": str(path), "budget": 2,
                "known_share": 0.0, "limit": 3, "reference": 8, "folder": None,
            },
            {
                "facts": w.facts[1:3], "methods": ["random"], "texts": "", "texts_per_group": 1, "words": 2,
                "reference": 4, "budget": 3, "limit": 1, "max_prompts": 1, "known_share": 1.01, "seed": 1,
                "fact": w.facts[2].id, "folder": w.new("firing"), "overwrite": True, "progress": True,
            },
            {"overwrite": {"folder": w.saved(result, "finished")}},
        ),
        "load_texts": Case(load_texts, {"source": path}, {"source": list(FIRING_TEXTS[:2])}),
        "Texts.bag": Case(texts.bag, {"fact": w.facts[0]}, {"fact": w.facts[1]}),
        "Texts.holding": Case(texts.holding, {"name": "Rome"}, {"name": "Paris"}),
        "PromptTypes.plot": Case(result.plot, {}, {"kind": "contrasts", "axes": Figure().subplots(1, 3)}),
        "PromptTypes.report": Case(lambda folder: result.report(folder).exists(), {"folder": w.new("page")}),
    }  # fmt: skip
