"""Edits: a fact changed in a model's weights, by editors that are pluggable as scorers are.

Here: what an edit shall come to, the editor interface and its registry, what is added to weights, kept in a file,
applied and undone bit for bit; and the editors, one file each. Not here: judging edits (``evaluation``), and changes of
activations for a while (``interventions``).
"""

from kn_attrib.editing.applied import AppliedEdit, apply_delta
from kn_attrib.editing.changes import Change, RankOne, ValueVectors
from kn_attrib.editing.edit import Edit
from kn_attrib.editing.editor import Editor
from kn_attrib.editing.fine_tune import FineTune
from kn_attrib.editing.fine_tune_constrained import FineTuneConstrained
from kn_attrib.editing.knowledge_neurons import KnowledgeNeurons
from kn_attrib.editing.last_layer_neurons import LastLayerNeurons
from kn_attrib.editing.neuron_editor import AnswerVectors, NeuronEditor
from kn_attrib.editing.optimised import Optimised
from kn_attrib.editing.random_neurons import RandomNeurons
from kn_attrib.editing.registry import get_editor, list_editors, make_editor, register_editor
from kn_attrib.editing.rome import Rome
from kn_attrib.editing.shared_neurons import unshared_sets
from kn_attrib.editing.weight_delta import WeightDelta

__all__ = [
    "AnswerVectors",
    "AppliedEdit",
    "Change",
    "Edit",
    "Editor",
    "FineTune",
    "FineTuneConstrained",
    "KnowledgeNeurons",
    "LastLayerNeurons",
    "NeuronEditor",
    "Optimised",
    "RandomNeurons",
    "RankOne",
    "Rome",
    "ValueVectors",
    "WeightDelta",
    "apply_delta",
    "get_editor",
    "list_editors",
    "make_editor",
    "register_editor",
    "unshared_sets",
]
