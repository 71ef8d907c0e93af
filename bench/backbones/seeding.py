"""Random numbers of a built network: they depend on seed and purpose alone, not on what was drawn before."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import torch


def generator(seed: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(_derived_seed(seed, purpose))


@contextmanager
def seeded(seed: int, purpose: str) -> Generator[None]:
    """Seed torch's global CPU generator by seed and purpose inside the block, and restore its state afterwards.

    For constructors of other packages, which take no generator. `torch.manual_seed` would also reseed every GPU's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_derived_seed(seed, purpose))
        yield


def _derived_seed(seed: int, purpose: str) -> int:
    """Return a separate seed for every purpose, so that two generators of one run never draw the same numbers."""
    return int.from_bytes(hashlib.sha256(f"{purpose}\x00{seed}".encode()).digest()[:8], "big") >> 1
