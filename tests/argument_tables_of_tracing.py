"""What the arguments of causal tracing may be beside their defaults."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from argument_cases import Case
from argument_world import CONTRASTING, World
from kn_attrib.evaluation import trace
from small_results import small_trace


def of_tracing(w: World) -> dict[str, Case]:
    result = small_trace(w.bert, w.facts[:4])

    def tables(**given: Any) -> Any:
        return trace(**{"progress": False, **given}).tables(), given.get("folder") is not None

    return {
        "trace": Case(
            tables,
            {
                "model": w.bert, "facts": w.facts[:4], "methods": ["activation"], "kinds": ("hidden", "ffn"), "k": 2,
                "samples": 2, "window": 2, "known_share": 0.0, "limit": 2, "folder": None,
            },
            {
                "facts": w.facts[1:4], "methods": ["random"], "kinds": ("ffn",), "severed": ("ffn",), "window": 1,
                "corruption": "uniform", "noise": 1.0, "samples": 3, "k": 3, "limit": 1, "max_prompts": 2,
                "known_share": 1.01, "contrast_facts": 1, "seed": 1, "folder": w.new("trace"), "overwrite": True,
                "progress": True, "fact": w.facts[3].id,
            },
            {"overwrite": {"folder": w.saved(result, "finished")}, "contrast_facts": {"methods": [CONTRASTING]}},
        ),
        "Trace.plot": Case(
            result.plot, {}, {"fact": w.facts[0].id, "kind": "ffn", "ax": Figure().subplots(1, 3)[0]},
            {"ax": {"kind": "ffn"}},
        ),
        "Trace.report": Case(lambda folder: result.report(folder).exists(), {"folder": w.new("page")}),
        "TraceRows.average_effects": Case(result.average_effects, {"kind": "ffn"}, {"kind": "hidden"}),
        "TraceRows.curves": Case(
            result.curves, {"method": "tracing", "metric": "indirect_effect", "kind": "ffn", "role": "answer"},
            {"method": "random", "metric": "score_share", "kind": "hidden", "role": "last_subject"},
        ),
    }  # fmt: skip
