"""Random numbers of a built network: a function of seed and purpose alone, whatever was drawn before."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import torch


def derived(seed: int, purpose: str) -> int:
    """A seed of its own for every purpose, so that two generators of one run never draw the same numbers."""
    return int.from_bytes(hashlib.sha256(f"{purpose}\x00{seed}".encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator for what `purpose` names."""
    return torch.Generator().manual_seed(derived(seed, purpose))


@contextmanager
def seeded(seed: int, purpose: str) -> Generator[None]:
    """Meanwhile torch's global CPU generator draws what seed and purpose say; afterwards it goes on as before.

    For constructors of other packages, which take no generator. `torch.random.fork_rng` with `torch.manual_seed` would
    do the same and also touch every GPU's generator, where nothing is built.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(derived(seed, purpose))
    try:
        yield
    finally:
        torch.set_rng_state(state)
