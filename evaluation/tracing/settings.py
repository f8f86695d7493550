"""Settings of causal tracing, and which states are restored together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from kn_attrib.errors import ConfigError, unknown
from kn_attrib.evaluation.experiment import ExperimentSettings, Option
from kn_attrib.interventions.corrupted_run import Restoration
from kn_attrib.interventions.corrupted_subject import CORRUPTIONS, Corruption
from kn_attrib.interventions.states import STATES, State
from kn_attrib.models.neuron_model import NeuronModel

Severed = Literal["ffn", "attention"]
SEVERED: tuple[Severed, ...] = get_args(Severed)
WINDOW = 10 / 48
"""Layers of a window by layers of the model: ten of GPT-2 XL's 48, as in the paper."""
NOISE = 3.0


@dataclass(frozen=True)
class TracingSettings(ExperimentSettings):
    """Settings of causal tracing; see `trace`."""

    kinds: Annotated[tuple[State, ...], Option("States to restore, by commas: hidden, ffn, attention.")] = STATES
    severed: Annotated[
        tuple[Severed, ...],
        Option("Also restore hidden states with what these write later held at its corrupted values: ffn, attention."),
    ] = ()
    window: Annotated[
        int | None, Option("Layers restored together (ffn, attention); 0 for 10 in 48 of the model's.", least=0)
    ] = None
    corruption: Annotated[
        Corruption, Option("gaussian or uniform noise on the subject, or replace it by other subjects.")
    ] = "gaussian"
    noise: Annotated[float, Option("Size of the noise, in standard deviations of the subjects' embeddings.")] = NOISE
    samples: Annotated[int, Option("Corrupted runs of each prompt.")] = 10
    max_prompts: Annotated[int | None, Option("Most prompts per fact; 0 for all.", least=0)] = 1
    k: Annotated[int, Option("Suppress each layer's k highest neurons of each method.")] = 10
    contrast_facts: int = 8

    def check(self, model: NeuronModel) -> None:
        """Raise ConfigError on a setting that is out of range for the model."""
        if not self.kinds:
            raise ConfigError(f"kinds is empty; expected some of {', '.join(STATES)}.")
        for what, given, known in (("kind", self.kinds, STATES), ("severed output", self.severed, SEVERED)):
            for name in given:
                if name not in known:
                    raise ConfigError(unknown(what, name, known))
            if len(set(given)) < len(given):
                raise ConfigError(f"a {what} is given twice in {', '.join(given)}; name each once.")
        if self.severed and "hidden" not in self.kinds:
            raise ConfigError(
                "severed needs the kind 'hidden': it is a hidden state that is restored; add it to kinds."
            )
        if self.window is not None and not 1 <= self.window <= model.n_layers:
            raise ConfigError(f"window is {self.window}; expected 1 to {model.n_layers}, the layers of {model.name}.")
        if self.window is not None and self.kinds == ("hidden",):
            raise ConfigError("window is of the kinds 'ffn' and 'attention'; hidden states are restored one by one.")
        if self.corruption not in CORRUPTIONS:
            raise ConfigError(unknown("corruption", self.corruption, CORRUPTIONS))
        if not 0 < self.noise < float("inf"):
            raise ConfigError(f"noise is {self.noise}; expected a positive number of standard deviations, such as 3.")
        if self.corruption == "replace" and self.noise != NOISE:
            raise ConfigError("noise has no effect where the subject is replaced; leave it out.")
        if self.samples < 1:
            raise ConfigError(f"samples is {self.samples}; expected at least 1 corrupted run.")
        if not 1 <= self.k <= model.n_neurons:
            raise ConfigError(f"k is {self.k}; expected 1 to {model.n_neurons}, the neurons of a layer.")

    def width(self, n_layers: int) -> int:
        """Layers of a window in a model of so many layers."""
        return self.window or max(1, round(WINDOW * n_layers))

    def restorations(self, n_layers: int, n_tokens: int) -> list[tuple[str, int, Restoration]]:
        """Every cell of a prompt: kind, layer (of a window its middle), and what is restored."""
        kinds: list[tuple[str, State, Severed | None]] = [(kind, kind, None) for kind in self.kinds]
        kinds += [(f"hidden_severed_{output}", "hidden", output) for output in self.severed]
        found = []
        for name, state, severed in kinds:
            width = 1 if state == "hidden" else self.width(n_layers)
            for token in range(n_tokens):
                for layer in range(n_layers):
                    start = layer - width // 2
                    low, high = max(0, start), min(n_layers, start + width)
                    found.append((name, layer, Restoration(state, token, low, high, severed)))
        return found
