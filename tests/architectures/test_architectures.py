"""Every method on every architecture: it does what its record claims, or refuses as docs/backbones.md says."""

from __future__ import annotations

import pytest
from architectures import ARCHITECTURES, METHODS, examine

from bench.core.errors import BenchError


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("column", METHODS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_method_on_an_architecture(name: str, column: str) -> None:
    try:
        examine(ARCHITECTURES[name], column)
    except BenchError as refusal:
        pytest.skip(refusal.line())
