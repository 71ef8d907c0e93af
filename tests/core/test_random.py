"""Draws: numpy's Philox at the counter of step and example, in 64 whole bits."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import pytest

from bench.core.random import uniform


@pytest.mark.parametrize("step", [0, 1, 7, -1])
@pytest.mark.parametrize("seed", range(4))  # of some the key's words lie on both sides of 2⁶³
def test_draws_are_philox_at_step_and_example(seed: int, step: int) -> None:
    digest = hashlib.sha256(f"{seed}\x00mask".encode()).digest()
    key = int.from_bytes(digest[:16], "little")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = uniform(seed, "mask", step, np.array([5, 0]), 9)
    for row, example in zip(drawn, (5, 0), strict=True):
        counter = (example << 128) | (step % 2**64 << 192)
        assert row.tolist() == np.random.Generator(np.random.Philox(key=key, counter=counter)).random(9).tolist()
