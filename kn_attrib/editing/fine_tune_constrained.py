"""Fine-tuning of one layer's output matrix, within bounds."""

from __future__ import annotations

from dataclasses import dataclass

from kn_attrib.editing.fine_tune import FineTune
from kn_attrib.editing.registry import register_editor


@register_editor("fine_tune_constrained")
@dataclass(frozen=True)
class FineTuneConstrained(FineTune):
    """`FineTune` with every number of the matrix held within ``limit`` of what it was.

    Parameters
    ----------
    layer, steps, rate, stop : as of `FineTune`.
    limit : most that a number of the matrix may move; the published one was chosen for gpt2-xl.

    Reference
    ---------
    The baseline FT+L of Meng et al. 2022, arXiv 2202.05262; after Zhu et al. 2020, arXiv 2012.00363.
    """

    limit: float | None = 5e-4
