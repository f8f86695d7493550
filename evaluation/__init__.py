"""Judges neurons; never knows a method."""

from kn_attrib.evaluation.comparison import Comparison
from kn_attrib.evaluation.deletion import run_deletion
from kn_attrib.evaluation.grid import Factor, Grid, compare_grid
from kn_attrib.evaluation.harness import DEFAULT_METHODS, ComparisonInterrupted, compare
from kn_attrib.evaluation.injection import run_injection
from kn_attrib.evaluation.perplexity import perplexity
from kn_attrib.evaluation.plant_recipe import Recipe, Writing
from kn_attrib.evaluation.planted_benchmark import benchmark
from kn_attrib.evaluation.planted_result import PlantedResult
from kn_attrib.evaluation.planting import Planter, plant
from kn_attrib.evaluation.plants import Plant
from kn_attrib.evaluation.protocols import ProtocolResult
from kn_attrib.evaluation.questions import Answer, answers

__all__ = [
    "DEFAULT_METHODS",
    "Answer",
    "Comparison",
    "ComparisonInterrupted",
    "Factor",
    "Grid",
    "Plant",
    "PlantedResult",
    "Planter",
    "ProtocolResult",
    "Recipe",
    "Writing",
    "answers",
    "benchmark",
    "compare",
    "compare_grid",
    "perplexity",
    "plant",
    "run_deletion",
    "run_injection",
]
