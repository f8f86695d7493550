"""kn_attrib: find the feed-forward neurons that carry a fact, with any attribution method, and judge how well."""

import logging
from typing import TYPE_CHECKING, Any

from kn_attrib._version import __version__
from kn_attrib.editing.applied import apply_delta
from kn_attrib.editing.edit import Edit
from kn_attrib.editing.editor import Editor
from kn_attrib.editing.registry import get_editor, list_editors, make_editor, register_editor
from kn_attrib.editing.weight_delta import WeightDelta
from kn_attrib.errors import KnAttribError
from kn_attrib.facts.facts import Fact, FactSet
from kn_attrib.facts.loading import facts_from_templates, load_facts
from kn_attrib.facts.prompts import Batch
from kn_attrib.interventions.activations import amplify, set_activation, suppress
from kn_attrib.models.loading import load_model
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.scoring.contrast_pool import Pool
from kn_attrib.scoring.neuron_scores import NeuronScores
from kn_attrib.scoring.refinement import Refinement, refine, refine_all
from kn_attrib.scoring.registry import get_method, list_methods, load_plugin, register
from kn_attrib.scoring.score import score
from kn_attrib.scoring.scorer import Attribution, ContrastScorer, FactScorer, Scorer

if TYPE_CHECKING:
    from kn_attrib.evaluation import Comparison, compare

__all__ = [
    "Attribution",
    "Batch",
    "Comparison",
    "ContrastScorer",
    "Edit",
    "Editor",
    "Fact",
    "FactScorer",
    "FactSet",
    "KnAttribError",
    "Neuron",
    "NeuronModel",
    "NeuronScores",
    "NeuronSet",
    "Pool",
    "Refinement",
    "Scorer",
    "WeightDelta",
    "__version__",
    "amplify",
    "apply_delta",
    "compare",
    "facts_from_templates",
    "get_editor",
    "get_method",
    "list_editors",
    "list_methods",
    "load_facts",
    "load_model",
    "load_plugin",
    "make_editor",
    "refine",
    "refine_all",
    "register",
    "register_editor",
    "score",
    "set_activation",
    "suppress",
]

# What is done is told as log records, to whoever listens; where nobody does, nothing is printed.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


def __getattr__(name: str) -> Any:
    # The evaluation depends on this package, never the other way round; the public names are looked up when used.
    if name in ("compare", "Comparison"):
        import kn_attrib.evaluation

        return getattr(kn_attrib.evaluation, name)
    raise AttributeError(f"module 'kn_attrib' has no attribute {name!r}")
