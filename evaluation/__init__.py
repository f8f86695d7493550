"""Judges neurons; never knows a method."""

from kn_attrib.evaluation.comparison import Comparison
from kn_attrib.evaluation.deletion import run_deletion
from kn_attrib.evaluation.harness import DEFAULT_METHODS, ComparisonInterrupted, compare
from kn_attrib.evaluation.injection import run_injection
from kn_attrib.evaluation.perplexity import perplexity
from kn_attrib.evaluation.protocols import ProtocolResult

__all__ = [
    "DEFAULT_METHODS",
    "Comparison",
    "ComparisonInterrupted",
    "ProtocolResult",
    "compare",
    "perplexity",
    "run_deletion",
    "run_injection",
]
