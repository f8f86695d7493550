"""The published scoring methods, one file each; importing this package registers them."""

from kn_attrib.methods.ablation import Ablation
from kn_attrib.methods.activation import Activation
from kn_attrib.methods.activation_norm import ActivationNorm
from kn_attrib.methods.attribution_patching import AttributionPatching
from kn_attrib.methods.balanced_mask import BalancedMask
from kn_attrib.methods.contrastive_joint_ig import ContrastiveJointIG
from kn_attrib.methods.expected_gradients import ExpectedGradients
from kn_attrib.methods.gradient import Gradient
from kn_attrib.methods.gradient_x_activation import GradientXActivation
from kn_attrib.methods.greedy_ablation import GreedyAblation
from kn_attrib.methods.hard_concrete import HardConcrete
from kn_attrib.methods.integrated_gradients import IntegratedGradients
from kn_attrib.methods.internal_influence import InternalInfluence
from kn_attrib.methods.joint_integrated_gradients import JointIntegratedGradients
from kn_attrib.methods.layer_conductance import LayerConductance
from kn_attrib.methods.layer_integrated_gradients import LayerIntegratedGradients
from kn_attrib.methods.logit_attribution import LogitAttribution
from kn_attrib.methods.logprob_increase import LogprobIncrease
from kn_attrib.methods.multi_baseline_ig import MultiBaselineIG
from kn_attrib.methods.probe import Probe
from kn_attrib.methods.probeless import Probeless
from kn_attrib.methods.qrnca import QRNCA
from kn_attrib.methods.query_neurons import QueryNeurons
from kn_attrib.methods.random import Random
from kn_attrib.methods.random_matched import RandomMatched
from kn_attrib.methods.relp import RelP
from kn_attrib.methods.restoration import Restoration
from kn_attrib.methods.shapley import Shapley
from kn_attrib.methods.shuffled import Shuffled
from kn_attrib.methods.slimming import Slimming

__all__ = [
    "QRNCA",
    "Ablation",
    "Activation",
    "ActivationNorm",
    "AttributionPatching",
    "BalancedMask",
    "ContrastiveJointIG",
    "ExpectedGradients",
    "Gradient",
    "GradientXActivation",
    "GreedyAblation",
    "HardConcrete",
    "IntegratedGradients",
    "InternalInfluence",
    "JointIntegratedGradients",
    "LayerConductance",
    "LayerIntegratedGradients",
    "LogitAttribution",
    "LogprobIncrease",
    "MultiBaselineIG",
    "Probe",
    "Probeless",
    "QueryNeurons",
    "Random",
    "RandomMatched",
    "RelP",
    "Restoration",
    "Shapley",
    "Shuffled",
    "Slimming",
]
