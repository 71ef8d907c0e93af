"""`bench reproduce`: verdicts, exit codes, JSON and files; every experiment runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cli import main
from bench.core import registry
from bench.core.errors import CHECK, OK, USAGE

SHORT = ["--set", "width=12", "--set", "classes=2", "--set", "steps=400"]
Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def reproduce(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code and JSON of `bench reproduce …`."""

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        code = main(["reproduce", *words, "--json", "--out", str(tmp_path)])
        return code, json.loads(capsys.readouterr().out)

    return run


def by_name(found: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in found[kind]}


@pytest.mark.parametrize("more", [[], ["depth=2", "weight_decay=1e-2"], ["depth=4", "steps=1500", "classes=3"]])
def test_parsimony_holds(reproduce: Run, more: list[str]) -> None:
    given = {**dict(word.split("=") for word in SHORT if "=" in word), **dict(word.split("=") for word in more)}
    code, found = reproduce("parsimony", *(part for k, v in given.items() for part in ("--set", f"{k}={v}")))
    assert code == OK
    assert list(found) == ["name", "held", "checks", "controls"]
    assert found["held"] is True
    checks, decay = by_name(found, "checks"), float(given.get("weight_decay", 0))
    assert list(checks) == ["rho", "bulk_deviation", "update_rank", "subspace"]
    assert checks["rho"]["predicted"] == pytest.approx(0.5 * (1 - 0.05 * decay) ** int(given["steps"]), rel=1e-15)
    assert checks["rho"]["measured"] == pytest.approx(checks["rho"]["predicted"], abs=1e-12)
    assert checks["bulk_deviation"]["measured"] <= 1e-12
    assert checks["update_rank"]["measured"] == 2 * int(given["classes"])
    for name in ("adam", "gaussian"):
        control = by_name(found, "controls")[name]
        assert control["held"] is True
        assert control["measured"] > 2 * int(given["classes"])


@pytest.mark.parametrize("changed", ["optimizer=adam", "init=gaussian"])
def test_what_breaks_the_law_exits_4(reproduce: Run, changed: str) -> None:
    code, found = reproduce("parsimony", *SHORT, "--set", changed)
    assert code == CHECK
    assert found["held"] is False
    assert not any(check["held"] for check in found["checks"][1:])


def test_momentum_obeys_the_law_without_weight_decay_only(reproduce: Run) -> None:
    assert reproduce("parsimony", *SHORT, "--set", "optimizer=momentum")[0] == OK
    assert reproduce("parsimony", *SHORT, "--set", "optimizer=momentum", "--set", "weight_decay=1e-2")[0] == CHECK


def test_too_short_a_training_never_holds(reproduce: Run) -> None:
    code, found = reproduce("parsimony", *SHORT[:4], "--set", "steps=300", "--set", "init_scale=1e-3")
    assert code == CHECK
    assert not any(check["held"] for check in found["checks"])
    assert all("not trained long enough" in check["note"] for check in found["checks"])


def test_the_compressed_network_tracks_the_full_one(reproduce: Run) -> None:
    code, found = reproduce(
        "parsimony-compressed", "--set", "width=14", "--set", "rank=2", "--set", "weight_decay=1e-2"
    )
    assert code == OK
    checks = by_name(found, "checks")
    assert checks["bound"]["predicted"] == pytest.approx((14 - 4) * 0.5**6)
    assert checks["difference"]["measured"] < 1e-9
    assert found["controls"][0]["measured"] > checks["bound"]["predicted"]
    code, found = reproduce("parsimony-compressed", "--set", "width=14", "--set", "rank=2", "--set", "steps=5")
    assert code == CHECK
    assert "not trained long enough" in found["checks"][0]["note"]


def test_figure1_has_the_size_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"networks": "mlp", "optimizers": "momentum", "width": "40", "depth": "3", "steps": "5", "classes": "10"}
    words = [part for key, value in sizes.items() for part in ("--set", f"{key}={value}")]
    code = main(["reproduce", "figure1", "--quick", *words, "--accelerator", "cpu", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert code in (OK, CHECK)
    result = json.loads((tmp_path / "figure1" / "result.json").read_text())
    sigma = np.linalg.svd(np.random.default_rng(0).normal(size=(40, 40)), compute_uv=False)
    [control] = result["controls"]
    assert control["name"] == "mlp: Gaussian 40×40"
    assert control["measured"] == pytest.approx((sigma[:20] ** 2).sum() / (sigma**2).sum())
    assert result["table"][1][-1].endswith("/ 40")
    assert "The 90% were set for each network's own size." in out
    [run] = (tmp_path / "figure1" / "runs").glob("*/record.json")
    assert (
        json.loads(run.read_text())["spec"]["options"]["backbone"] | {"depth": 3, "width": 40}
        == (json.loads(run.read_text())["spec"]["options"]["backbone"])
    )


def test_files_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "parsimony", *SHORT, "--out", str(tmp_path)]) == OK
    out = capsys.readouterr().out
    assert out.startswith("parsimony: held")
    folder = tmp_path / "parsimony"
    assert {path.name for path in folder.iterdir()} == {"result.json", "figure.png", "figure.html"}
    assert all(str(path) in out for path in folder.iterdir())
    result = json.loads((folder / "result.json").read_text())
    assert result["config"]["width"] == 12
    assert result["held"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["parsimny"], "Did you mean 'parsimony'?"),
        (["parsimony", "--set", "widht=3"], "Did you mean 'width'?"),
        (["parsimony", "--set", "width=6"], "Give a width above 6."),
        (["parsimony", "--set", "width=x"], "expected a whole number"),
        (["parsimony", "--set", "width=9", "--set", "width=9"], "given twice"),
        (["parsimony", "--set", "width"], "not of the form key=value"),
        (["figure1", "--set", "networks=mlp,nlp"], "known: dln"),
        (["figure1", "--set", "width=20"], "the top 2K = 20 directions would hold all"),
        (["figure1", "--set", "width=100"], "Give a multiple of 8."),
        (["figure1", "--set", "networks=resnet18", "--set", "width=64"], "its width is fixed"),
        (["figure1", "--set", "depth=1"], "depth"),
        (["nuclear-norm", "--set", "strengths=1e-3,1e-2"], "the first of them 0"),
        ([], "no experiment is named"),
    ],
)
def test_wrong_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["reproduce", *words, "--out", str(tmp_path)]) == USAGE
    assert said in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_network_that_diverges_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["reproduce", "parsimony", *SHORT, "--set", "lr=50", "--out", str(tmp_path)]) not in (OK, CHECK)
    assert "the network diverged" in capsys.readouterr().err


def test_the_list_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--list", "--json"]) == OK
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == [*registry.entries("experiments")]
    assert not [one for one in listed if one["error"] or not one["summary"]]
    assert all(option["help"] for one in listed for option in one["options"])


def test_bench_show_knows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "figure1"]) == OK
    out = capsys.readouterr().out
    assert "--quick: vectors=digits" in out
    assert "bench reproduce figure1" in out


@pytest.mark.slow
def test_dropout_reaches_the_closed_form(reproduce: Run) -> None:
    code, found = reproduce("dropout-nuclear")
    assert code == OK
    predicted = {check["name"]: check["predicted"] for check in found["checks"]}
    assert predicted["c=0.05 σ1"] == pytest.approx(3.58333333)
    assert predicted["c=0.25 σ3"] == pytest.approx(0.71428571)
    assert [predicted[f"c=1 σ{i}"] for i in (1, 2, 3, 4)] == pytest.approx([1.66666667, 0.66666667, 0, 0])
    assert all(abs(check["measured"] - check["predicted"]) <= 0.04 for check in found["checks"])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(registry.BUILTIN["experiments"]))
def test_every_experiment_runs_quickly(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That it comes to a verdict, whichever; what the verdict is stands in docs/reproductions.md."""
    code = main(["reproduce", name, "--quick", "--json", "--out", str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    assert code == (OK if found["held"] else CHECK)
    assert found["checks"]
    assert all(isinstance(check["measured"], int | float) for check in found["checks"])
    assert (tmp_path / name / "figure.png").stat().st_size > 10_000
