"""Judges neurons; never knows a method."""

from kn_attrib.evaluation.comparison import Comparison
from kn_attrib.evaluation.grid import Factor, Grid, compare_grid
from kn_attrib.evaluation.harness import DEFAULT_METHODS, ComparisonInterrupted, compare
from kn_attrib.evaluation.questions import Answer, answers

__all__ = [
    "DEFAULT_METHODS", "Answer", "Comparison", "ComparisonInterrupted", "Factor", "Grid", "answers", "compare",
    "compare_grid",
]  # fmt: skip
