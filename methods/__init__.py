"""The published scoring methods, one file each; importing this package registers them."""

from kn_attrib.methods.ablation import Ablation
from kn_attrib.methods.activation import Activation
from kn_attrib.methods.gradient_x_activation import GradientXActivation
from kn_attrib.methods.integrated_gradients import IntegratedGradients
from kn_attrib.methods.layer_conductance import LayerConductance
from kn_attrib.methods.layer_integrated_gradients import LayerIntegratedGradients
from kn_attrib.methods.logit_attribution import LogitAttribution
from kn_attrib.methods.logprob_increase import LogprobIncrease
from kn_attrib.methods.probe import Probe
from kn_attrib.methods.probeless import Probeless
from kn_attrib.methods.qrnca import QRNCA
from kn_attrib.methods.query_neurons import QueryNeurons
from kn_attrib.methods.random import Random
from kn_attrib.methods.random_matched import RandomMatched
from kn_attrib.methods.restoration import Restoration
from kn_attrib.methods.shuffled import Shuffled

__all__ = [
    "QRNCA",
    "Ablation",
    "Activation",
    "GradientXActivation",
    "IntegratedGradients",
    "LayerConductance",
    "LayerIntegratedGradients",
    "LogitAttribution",
    "LogprobIncrease",
    "Probe",
    "Probeless",
    "QueryNeurons",
    "Random",
    "RandomMatched",
    "Restoration",
    "Shuffled",
]
