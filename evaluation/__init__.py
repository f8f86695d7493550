"""Judges neurons; never knows a method.

Here: a room for each experiment (``comparison`` with its ``report``, ``firing``, ``planted``, ``protocols``,
``reading``, ``tracing``) and for what they share (``measure``, ``records``, ``statistics``), the frame of experiments
and the words that rows may say. Experiments never import one another.
"""

from kn_attrib.evaluation.comparison.compare import DEFAULT_METHODS, ComparisonInterrupted, compare
from kn_attrib.evaluation.comparison.grid import Factor, compare_grid
from kn_attrib.evaluation.experiment import Experiment, ExperimentSettings
from kn_attrib.evaluation.firing.firing import prompt_types
from kn_attrib.evaluation.firing.loading import load_texts
from kn_attrib.evaluation.firing.result import PromptTypes
from kn_attrib.evaluation.firing.texts import Texts
from kn_attrib.evaluation.measure.parameter_randomisation import parameter_randomisation
from kn_attrib.evaluation.measure.perplexity import perplexity
from kn_attrib.evaluation.planted.benchmark import benchmark
from kn_attrib.evaluation.planted.plant import Plant
from kn_attrib.evaluation.planted.planter import Planter, plant
from kn_attrib.evaluation.planted.recipe import Recipe, Writing
from kn_attrib.evaluation.planted.result import PlantedResult
from kn_attrib.evaluation.protocols.deletion import run_deletion
from kn_attrib.evaluation.protocols.injection import run_injection
from kn_attrib.evaluation.protocols.result import ProtocolResult
from kn_attrib.evaluation.reading.keys import TopPrompts, top_prompts
from kn_attrib.evaluation.reading.lens import logit_lens
from kn_attrib.evaluation.reading.reading import read
from kn_attrib.evaluation.reading.result import ReadingResult
from kn_attrib.evaluation.reading.values import read_values
from kn_attrib.evaluation.report.comparison import Comparison
from kn_attrib.evaluation.report.export import leaderboard_schema
from kn_attrib.evaluation.report.grid import Grid
from kn_attrib.evaluation.report.questions import Answer, answers
from kn_attrib.evaluation.tracing.result import Trace
from kn_attrib.evaluation.tracing.trace import trace

__all__ = [
    "DEFAULT_METHODS",
    "Answer",
    "Comparison",
    "ComparisonInterrupted",
    "Experiment",
    "ExperimentSettings",
    "Factor",
    "Grid",
    "Plant",
    "PlantedResult",
    "Planter",
    "PromptTypes",
    "ProtocolResult",
    "ReadingResult",
    "Recipe",
    "Texts",
    "TopPrompts",
    "Trace",
    "Writing",
    "answers",
    "benchmark",
    "compare",
    "compare_grid",
    "leaderboard_schema",
    "load_texts",
    "logit_lens",
    "parameter_randomisation",
    "perplexity",
    "plant",
    "prompt_types",
    "read",
    "read_values",
    "run_deletion",
    "run_injection",
    "top_prompts",
    "trace",
]
