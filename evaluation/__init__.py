"""Judges neurons; never knows a method."""

from kn_attrib.evaluation.comparison import Comparison
from kn_attrib.evaluation.harness import DEFAULT_METHODS, ComparisonInterrupted, compare

__all__ = ["DEFAULT_METHODS", "Comparison", "ComparisonInterrupted", "compare"]
