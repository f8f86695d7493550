"""kn_attrib: find the feed-forward neurons that carry a fact, with any attribution method, and judge how well."""

from typing import TYPE_CHECKING, Any

from kn_attrib._version import __version__
from kn_attrib.errors import KnAttribError
from kn_attrib.facts import Fact, FactSet, facts_from_templates, load_facts
from kn_attrib.interventions import amplify, set_activation, suppress
from kn_attrib.loading import load_model
from kn_attrib.model import NeuronModel
from kn_attrib.neurons import Neuron, NeuronSet
from kn_attrib.pool import Pool
from kn_attrib.prompts import Batch
from kn_attrib.refine import Refinement, refine, refine_all
from kn_attrib.registry import get_method, list_methods, load_plugin, register
from kn_attrib.scorer import Attribution, ContrastScorer, FactScorer, Scorer
from kn_attrib.scores import NeuronScores
from kn_attrib.scoring import score

if TYPE_CHECKING:
    from kn_attrib.evaluation import Comparison, compare


__all__ = [
    "Attribution",
    "Batch",
    "Comparison",
    "ContrastScorer",
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
    "__version__",
    "amplify",
    "compare",
    "facts_from_templates",
    "get_method",
    "list_methods",
    "load_facts",
    "load_model",
    "load_plugin",
    "refine",
    "refine_all",
    "register",
    "score",
    "set_activation",
    "suppress",
]


def __getattr__(name: str) -> Any:
    # The evaluation depends on this package, never the other way round; the public names are looked up when used.
    if name in ("compare", "Comparison"):
        import kn_attrib.evaluation

        return getattr(kn_attrib.evaluation, name)
    raise AttributeError(f"module 'kn_attrib' has no attribute {name!r}")
