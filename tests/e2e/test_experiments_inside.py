"""`bench reproduce` of the experiments that look inside a training, as small as `--quick` makes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import main
from bench.core.errors import CHECK, OK

pytestmark = pytest.mark.slow


def reproduce(name: str, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, dict]]:
    """Exit code, and checks and controls by name."""
    code = main(["reproduce", name, "--quick", "--json", "--out", str(folder), *more])
    found = json.loads(capsys.readouterr().out)
    assert found["held"] == (code == OK)
    assert (folder / name / "figure.png").stat().st_size > 10_000
    return code, {one["name"]: one for one in (*found["checks"], *found["controls"])}


def test_features_collapse_in_few_directions_by_energy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = reproduce("collapse-rank", tmp_path, capsys)
    assert code in (OK, CHECK)  # what it says of ranks is an open question
    must = ["training accuracy", "NC1 at the end, of the start", "shuffled labels: NC1 at the end, of the start"]
    assert all(found[name]["held"] for name in must), found
    header, *rows = json.loads((tmp_path / "collapse-rank" / "result.json").read_text())["table"]
    by_energy = header.index("features by energy")
    assert abs(float(rows[-2][by_energy]) - 9) < 1 < abs(float(rows[0][by_energy]) - 9)


@pytest.mark.parametrize("attribution", ["integrated-gradients", "occlusion"])
def test_attributions_survive_in_the_top_directions(
    attribution: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = reproduce("interpretability", tmp_path, capsys, "--set", f"attribution={attribution}")
    assert code == OK, found
