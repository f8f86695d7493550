"""Settings of a comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kn_attrib.errors import ConfigError, NeuronError, check_kinds
from kn_attrib.evaluation.vocabulary import CONTROLS, check_controls, check_interventions
from kn_attrib.models.neuron_model import NeuronModel
from kn_attrib.scoring.refinement import Refinement

LEAST = {"limit": 1, "max_prompts": 1, "control_facts": 0, "max_rows": 1, "contrast_facts": 0}
FACTOR = 2.0
REASONS_TO_KEEP = ("unknown", "ambiguous", "leaking")


@dataclass(frozen=True)
class Settings:
    """Settings of a comparison; see `compare`."""

    budgets: tuple[int, ...] = (1, 5, 10, 20)
    refinement: str | None = None
    factor: float = FACTOR
    control_facts: int = 5
    limit: int | None = None
    max_prompts: int | None = None
    known_share: float = 0.5
    keep: tuple[str, ...] = ()
    seed: int = 0
    max_rows: int = 1024
    normalised: bool = False
    contrast_facts: int = 8
    interventions: tuple[str, ...] = ("suppress", "amplify")
    controls: tuple[str, ...] = CONTROLS
    threshold: float | None = None
    share: float | None = None
    dropout: tuple[float, ...] = (0.01, 0.1)
    plain_text: tuple[str, ...] | None = None
    curves: bool = False

    def check(self, model: NeuronModel) -> None:
        """Raise on a setting that is out of range for the model."""
        check_kinds(self)
        size = model.n_layers * model.n_neurons
        for k in self.budgets:
            if not 1 <= k <= size:
                raise NeuronError(f"budget k = {k}; expected 1 to {size}, the number of neurons of {model.name}.")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; expected at least {least}.")
        for reason in self.keep:
            if reason not in REASONS_TO_KEEP:
                raise ConfigError(f"keep holds {reason!r}; expected 'unknown', 'ambiguous' or 'leaking'.")
        if not 0 <= self.factor < math.inf:
            raise ConfigError(f"factor is {self.factor}; expected a number of at least 0.")
        if self.refinement is not None:
            Refinement.preset(self.refinement)
        check_interventions(self.interventions)
        if self.factor != FACTOR and not any(name.startswith("amplify") for name in self.interventions):
            raise ConfigError(
                f"factor is {self.factor}, which only an amplification asks for; expected 'amplify' among the "
                f"interventions, which are {', '.join(self.interventions)}."
            )
        check_controls(self.controls)
        for share in self.dropout:
            if not 0 < share < 1:
                raise ConfigError(f"dropout holds {share}; expected shares of the neurons, above 0 and below 1.")
