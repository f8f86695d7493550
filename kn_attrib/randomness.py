"""Random draws that depend on what they are for, never on the order in which they are made."""

from __future__ import annotations

import hashlib
import operator
from typing import Any

import numpy as np
import torch

from kn_attrib.errors import ConfigError

SEEDS = 2**63
"""There are so many: what PyTorch's generators take and a manifest holds as a number."""


def checked_seed(seed: Any) -> int:
    """A seed as a plain integer: what is drawn with 3 and with NumPy's 3 is the same, and JSON holds it.

    >>> checked_seed(np.int64(3))
    3

    Raises
    ------
    ConfigError : it is no integer, below 0 or too large.
    """
    try:
        found = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        found = -1
    if not 0 <= found < SEEDS:
        raise ConfigError(f"seed is {seed!r:.80}; expected a whole number from 0 to 2**63 - 1.")
    return found


def torch_generator(*key: object) -> torch.Generator:
    """A CPU generator seeded by a key, such as a seed and a fact's id: the same key, the same draws."""
    digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def numpy_generator(seed: int, *names: object) -> np.random.Generator:
    """A generator that depends on the seed and on what it is for, not on what ran before it."""
    digest = hashlib.sha256(repr((seed, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
