"""Random draws that depend on what they are for, never on the order in which they are made."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def torch_generator(*key: object) -> torch.Generator:
    """A CPU generator seeded by a key, such as a seed and a fact's id: the same key, the same draws."""
    digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def numpy_generator(seed: int, *names: object) -> np.random.Generator:
    """A generator that depends on the seed and on what it is for, not on what ran before it."""
    digest = hashlib.sha256(repr((seed, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
