"""The published scoring methods, one file each; importing this package registers them."""

from kn_attrib.methods.ablation import Ablation
from kn_attrib.methods.activation import Activation
from kn_attrib.methods.balanced_mask import BalancedMask
from kn_attrib.methods.gradient_x_activation import GradientXActivation
from kn_attrib.methods.greedy_ablation import GreedyAblation
from kn_attrib.methods.hard_concrete import HardConcrete
from kn_attrib.methods.integrated_gradients import IntegratedGradients
from kn_attrib.methods.layer_conductance import LayerConductance
from kn_attrib.methods.layer_integrated_gradients import LayerIntegratedGradients
from kn_attrib.methods.random import Random
from kn_attrib.methods.shapley import Shapley
from kn_attrib.methods.slimming import Slimming

__all__ = [
    "Ablation",
    "Activation",
    "BalancedMask",
    "GradientXActivation",
    "GreedyAblation",
    "HardConcrete",
    "IntegratedGradients",
    "LayerConductance",
    "LayerIntegratedGradients",
    "Random",
    "Shapley",
    "Slimming",
]
