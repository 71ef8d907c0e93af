"""`bench compare`: what it prints, JSON, filters, figures, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from records import list_files

from bench.cli import main
from bench.records import record
from bench.spectra.files import history

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., dict[str, Any]]) -> Path:
    """Two methods of three seeds on two tasks, with spectra; `bitfit` without a ΔW; a file that is no record."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    for method in ("full", "lora", "bitfit"):
        for task in ("cola", "rte"):
            for seed in range(3):
                made = make_record(
                    spec={"method": method, "task": f"glue/{task}", "seed": seed},
                    source={"data_hash": task},
                    metrics={"primary": {"value": 0.5 + 0.1 * (method == "lora") + 0.01 * seed}},
                    params={"trainable": 1000 if method == "lora" else 4000},
                    **({"ranks": []} if method == "bitfit" else {}),
                )
                place = record.folder(folder, made.run_id)
                record.write(made, place)
                for one in made.ranks[:1]:
                    history.write(place / history.FILE, [spectrum(one.layer, 4 if method == "lora" else 32, seed)])
                list_files(place)
    broken = folder / ("0" * 16)
    broken.mkdir()
    (broken / record.FILE).write_text("{")
    return folder


def spectrum(layer: str, count: int, seed: int) -> history.SpectrumHistory:
    """Zero at the start; `count` equal singular values at step 10; σ, σ/2, … at the end."""
    end = (1.0 + seed) * 0.5 ** np.arange(count)
    values = np.stack([np.zeros(count), np.ones(count), end]).astype(np.float64)
    steps = np.array([0, 10, 20])
    return history.SpectrumHistory(of="updates", layer=layer, shape=(384, 384), how="svd", steps=steps, values=values)


def compare(*words: str | Path) -> int:
    return main(["compare", *map(str, words)])


def test_every_section_and_what_could_not_be_read(runs: Path, capsys: Captured) -> None:
    assert compare("full", "lora", "--runs", runs) == 0
    shown = capsys.readouterr()
    assert [line for line in shown.out.splitlines() if line.startswith("#")] == [
        "## B compared with A",
        "### Differences between the specifications",
        "### Scores",
        "### Costs and ranks",
        "### Rank of ΔW, layer by layer (mean over runs) ⚠",
    ]
    assert "| method | full    | lora    |" in shown.out and "+0.100 [+0.100, +0.100] | better " in shown.out
    assert "| trained parameters   |   4,000 |   1,000 |  0.25 |" in shown.out
    assert shown.err.startswith("warning: ") and "0000000000000000" in shown.err


def test_json_is_one_value_with_the_same_numbers(runs: Path, capsys: Captured) -> None:
    assert compare("full", "lora", "--runs", runs, "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["a"]["label"] == "method full" and value["b"]["states"] == {"done": 6}
    assert value["fields"] == [{"name": "method", "a": ["full"], "b": ["lora"], "cautioned": False}]
    assert value["overall"]["difference"]["mean"] == pytest.approx(0.1) and value["overall"]["verdict"] == "better"
    assert value["ratios"][0]["name"] == "trained parameters" and value["ratios"][0]["ratio"] == 0.25
    assert value["layers"][0]["a"]["effective"] == 2.0 and value["cautions"] == []


def test_filters_narrow_both(runs: Path, capsys: Captured) -> None:
    words = ["--runs", str(runs), "--tasks", "glue/rte", "--where", "seed<2", "--json"]
    assert compare("method=full", "method=lora&seed>0", *words) == 0
    value = json.loads(capsys.readouterr().out)
    assert [one["task"] for one in value["scores"]] == ["glue/rte"]
    assert (value["a"]["seeds"], value["b"]["seeds"]) == ([0, 1], [1])
    assert value["scores"][0]["alone"] == [["0"], []]
    assert [one["code"] for one in value["cautions"]] == ["seeds"]


def test_one_run_against_another(runs: Path, capsys: Captured) -> None:
    records, _ = record.load_all(runs)
    one, two = (next(r.run_id for r in records if r.spec.method == m) for m in ("full", "lora"))
    assert compare(one, two, "--runs", runs) == 0
    assert f"run {one} (full on glue/" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["made/compare.html", "compare.png", "compare.pdf"])
def test_a_figure(runs: Path, tmp_path: Path, name: str, capsys: Captured) -> None:
    assert compare("full", "lora", "--runs", runs, "--figure", tmp_path / name) == 0
    assert f"wrote {tmp_path / name}" in capsys.readouterr().err
    content = (tmp_path / name).read_bytes()
    assert content.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "tml": b"<!doctype html>"}[name[-3:]])


def test_a_table_for_a_paper(runs: Path, capsys: Captured) -> None:
    assert compare("full", "lora", "--runs", runs, "--format", "tex", "--label", "lora=LoRA_(ours)") == 0
    shown = capsys.readouterr().out
    assert r" & full & LoRA\_(ours) & difference \\" in shown
    assert [shown.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    assert r"trained parameters & 4,000 & 1,000 & $\times$\,0.25 \\" in shown
    assert compare("full", "lora", "--runs", runs, "--label", "lora=Ours") == 0
    assert "B: Ours" in capsys.readouterr().out
    assert compare("full", "lora", "--runs", runs, "--label", "lra=Ours") == 2
    assert "Did you mean 'lora'?" in capsys.readouterr().err


def drawn(runs: Path, a: str, b: str) -> tuple[Any, list[str]]:
    from bench.cli.compare.figure import figure
    from leaderboard.compare.comparison import compare as held
    from leaderboard.compare.selection import select_sides

    sides = select_sides(record.load_all(runs)[0], a, b)
    return figure(held(*sides), sides, runs)


def test_the_figure_shows_means_of_what_was_stored(runs: Path) -> None:
    """Singular values of ΔW at the end, and the effective rank over training, by numpy."""
    found, notes = drawn(runs, "full", "lora")
    course, ranks, norms, end = found.panels
    assert notes == [] and "the 1 layer whose" in found.caption
    assert "Caution: scores differ beyond noise (B minus A: cola +0.100" in found.caption
    assert end.title == "Singular values, encoder.layer.0.attention.self.query"
    for series, count in zip(end.content, (32, 4), strict=True):
        expected = 2.0 * 0.5 ** np.arange(count)
        assert series.y == pytest.approx(expected[expected > 1e-9 * 2.0]) and series.x[0] == 1
    for series, count in zip(course.content, (32, 4), strict=True):
        share = 0.5 ** np.arange(count) / np.sum(0.5 ** np.arange(count))
        assert list(series.x) == [10, 20], "at the start ΔW is 0 and has no rank"
        assert series.y == pytest.approx([count, np.exp(-np.sum(share * np.log(share)))])
    assert [list(series.y) for series in ranks.content] == [[2.0, 3.0]] * 2
    assert [list(series.y) for series in norms.content] == [pytest.approx([0.7, 0.7])] * 2


def test_a_figure_without_stored_spectra_is_of_the_records(runs: Path) -> None:
    for path in runs.glob(f"*/{history.FILE}"):
        path.unlink()
    found, notes = drawn(runs, "full", "lora")
    assert [panel.title for panel in found.panels] == ["Effective rank of ΔW by layer", "‖ΔW‖₂ by layer"]
    assert "6 of 6 runs of A have no spectra.npz" in notes[0] and "drawn from the records" in notes[-1]


def test_spectra_that_cannot_be_read_are_told_and_passed_over(runs: Path, capsys: Captured, tmp_path: Path) -> None:
    first = min(runs.glob(f"*/{history.FILE}"))
    first.write_bytes(b"no archive")
    assert compare("full", "lora", "--runs", runs, "--figure", tmp_path / "x.png") == 0
    assert f"note: {first} was changed after the run had written it" in capsys.readouterr().err


def test_hostile_names_cannot_leave_the_page(
    runs: Path, tmp_path: Path, make_record: Callable[..., dict[str, Any]]
) -> None:
    evil = "</script><script>alert(1)</script>"
    made = make_record(spec={"method": evil})
    made = structs.replace(made, ranks=(structs.replace(made.ranks[0], layer=evil), *made.ranks[1:]))
    record.write(made, record.folder(runs, made.run_id))
    assert compare("full", f"method={evil}", "--runs", runs, "--figure", tmp_path / "x.html") == 0
    assert "<script>alert" not in (tmp_path / "x.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["full", "loar"], 2, "B: no run, group or method 'loar'"),
        (["full", "full"], 2, "are the same runs"),
        (["full"], 2, "the following arguments are required: B"),
        (["full", "lora", "--tasks", "glue/nope"], 2, "--tasks: no run matches 'glue/nope'"),
        (["full", "lora", "--where", "nonsense"], 2, "is not a condition"),
        (["full", "lora", "--figure", "x.jpg"], 2, "names no known format"),
        (["full", "lora", "--figur", "x.png"], 2, "unknown flag '--figur'"),
        (["bitfit", "method=bitfit&seed<1", "--figure", "x.png"], 2, "share 2 of their runs"),
        (["bitfit&seed=0", "full"], 2, "'bitfit' is not a condition"),
        (["method=bitfit&seed=0", "method=bitfit&seed=1", "--figure", "x.png"], 2, "nothing to draw"),
    ],
)
def test_errors_have_three_parts(runs: Path, words: list[str], code: int, said: str, capsys: Captured) -> None:
    assert compare(*words, "--runs", runs) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert said in lines[0] and len(lines) == 3 and all(lines)


def test_no_records_is_the_environments_fault(tmp_path: Path, capsys: Captured) -> None:
    assert compare("full", "lora", "--runs", tmp_path / "none") == 3
    assert "no such folder" in capsys.readouterr().err
    assert compare("full", "lora", "--runs", tmp_path, "--json") == 3
    assert json.loads(capsys.readouterr().out)["error"]["what"].startswith("no records in")


def test_a_figure_that_cannot_be_written(runs: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").touch()
    assert compare("full", "lora", "--runs", runs, "--figure", tmp_path / "file" / "x.png") == 3
    assert "cannot write" in capsys.readouterr().err


def test_nothing_heavy_is_imported_without_a_figure(runs: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom bench.cli import main\nmain(['compare', 'full', 'lora', '--runs', sys.argv[1]])\n"
        "print(sorted({'torch', 'scipy', 'matplotlib', 'plotly'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(runs)], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
