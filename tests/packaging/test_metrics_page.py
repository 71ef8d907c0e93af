"""docs/metrics.md: its example runs, its tables are what the functions give, and none of them is left out."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import numpy as np
import pytest

from bench import spectra

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
COLUMNS = ("stable_rank", "effective_rank", "rankme", "participation_ratio", "nuclear_to_frobenius")


def test_the_example_runs() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8", raise_on_error=False)
    assert found.attempted >= 8
    assert found.failed == 0


@pytest.mark.parametrize(
    ("row", "sigma"), [("4, 3, 2, 1", [4, 3, 2, 1]), ("2⁰, 2⁻¹, …, 2⁻⁷", [2.0**-i for i in range(8)])]
)
def test_the_reference_table_is_what_the_functions_give(row: str, sigma: list[float]) -> None:
    [cells] = re.findall(rf"^\| {re.escape(row)} \| (.*) \|$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    given = np.array(sigma, dtype=np.float64)
    values = [float(getattr(spectra, name)(given, singular_values=True)) for name in COLUMNS]
    assert [float(cell) for cell in cells.split(" | ")] == pytest.approx(values, abs=1e-9)


def test_every_function_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert not [name for name in spectra.__all__ if name[0].islower() and not re.search(rf"\b{name}\b", text)]
