"""Random numbers of a built network: they depend on seed and purpose alone, not on what was drawn before."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import torch


def derived_seed(seed: int, purpose: str) -> int:
    """Return a separate seed for every purpose, so that two generators of one run never draw the same numbers."""
    return int.from_bytes(hashlib.sha256(f"{purpose}\x00{seed}".encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str) -> torch.Generator:
    """Make a CPU generator for one purpose."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose))


@contextmanager
def seeded(seed: int, purpose: str) -> Generator[None]:
    """Seed torch's global CPU generator by seed and purpose inside the block, and restore its state afterwards.

    For constructors of other packages, which take no generator. `torch.random.fork_rng` with `torch.manual_seed` would
    do the same and also reseed every GPU's generator, where nothing is built.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(derived_seed(seed, purpose))
    try:
        yield
    finally:
        torch.set_rng_state(state)
