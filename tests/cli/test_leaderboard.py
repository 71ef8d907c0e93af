"""`bench leaderboard`: five formats, filters, a baseline, results checked against their records, exit codes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from bench.cli import main
from bench.records import index, record

Captured = pytest.CaptureFixture[str]
FORMATS = ("md", "csv", "tex", "json", "html")


@pytest.fixture
def runs(tmp_path: Path, make_record: Callable[..., dict[str, Any]]) -> Path:
    """Two methods of three seeds on two tasks, and a file that is no record."""
    folder = tmp_path / "runs"
    for method in ("full", "lora"):
        for task in ("cola", "rte"):
            for seed in range(3):
                value = 0.5 + 0.1 * (method == "lora") + 0.01 * seed
                made = make_record(
                    spec={"method": method, "task": f"glue/{task}", "seed": seed},
                    source={"data_hash": task},
                    metrics={"primary": {"value": value}},
                )
                record.write(made, record.folder(folder, made.run_id))
    broken = folder / ("0" * 16)
    broken.mkdir()
    (broken / record.FILE).write_text("{")
    return folder


def leaderboard(*words: str | Path) -> int:
    return main(["leaderboard", *map(str, words)])


def test_the_table_and_what_could_not_be_read(runs: Path, capsys: Captured) -> None:
    assert leaderboard("--runs", runs) == 0
    shown = capsys.readouterr()
    assert "| lora" in shown.out and "+0.100 [+0.100, +0.100]" in shown.out and "peak memory" in shown.out
    [warning] = shown.err.splitlines()
    assert warning.startswith("warning: ") and "0000000000000000/record.json: cannot be read as a record (" in warning
    assert "). Remove " in warning


FIELDS = {
    "curve": [{"step": 7, "loss": 0.5}],
    "report": {"chosen": "yes"},
    "provenance": {"git": "abc", "python": "3.99"},
    "tracking": {"kind": "csv", "mode": "offline", "id": "x", "error": None, "directory": None},
}


@pytest.mark.parametrize("name", ["report.chosen=yes", "provenance.python=3.99", "provenance.git=abc", "tracking.id=x"])
def test_a_condition_on_what_tables_do_not_need(
    name: str, runs: Path, make_record: Callable[..., Any], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_record(spec={"method": "bitfit", "seed": 9}, **FIELDS)
    record.write(made, record.folder(runs, made.run_id))
    for attribute, value in (("LEAST", 1), ("SETTLED_NS", -(10**9))):
        monkeypatch.setattr(index, attribute, value)
    assert leaderboard("--runs", runs) == leaderboard("--runs", runs) == 0
    capsys.readouterr()
    assert leaderboard("--runs", runs, "--where", name, "--format", "csv") == 0
    assert {line["run_id"] for line in csv.DictReader(io.StringIO(capsys.readouterr().out))} - {""} == {made.run_id}


@pytest.mark.parametrize("argv", [["--json"], ["--format", "json"], ["--format", "html"], ["--output", "page.html"]])
def test_the_runs_themselves_are_shown_from_their_files(
    argv: list[str], runs: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(index, "load_slim", None)
    assert leaderboard("--runs", runs, *argv) == 0
    page = tmp_path / "page.html"
    assert '"bench run"' in capsys.readouterr().out + (page.read_text() if page.exists() else "")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_to_standard_output_and_to_a_file(runs: Path, name: str, tmp_path: Path, capsys: Captured) -> None:
    assert leaderboard("--runs", runs, "--format", name) == 0
    text = capsys.readouterr().out
    path = tmp_path / "made" / f"table.{name}"
    assert leaderboard("--runs", runs, "--output", path) == 0
    shown = capsys.readouterr()
    assert path.read_text(encoding="utf-8") == text and shown.out == "" and f"wrote {path}" in shown.err
    begins = {"md": "### glue", "csv": "suite,backbone", "tex": "% needs", "json": "{", "html": "<!doctype html>"}
    assert text.startswith(begins[name])


def test_json_flag_is_the_board(runs: Path, capsys: Captured) -> None:
    assert leaderboard("--runs", runs, "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert [row["label"] for row in value["tables"][0]["rows"]] == ["lora", "full"]
    assert len(value["runs"]) == 12 and len(value["problems"]) == 1


def rows(text: str) -> set[tuple[str, str]]:
    return {(line["row"], line["task"]) for line in csv.DictReader(io.StringIO(text)) if line["task"]}


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--methods", "lora"], {("lora", "glue/cola"), ("lora", "glue/rte")}),
        (["--tasks", "glue/rte"], {("lora", "glue/rte"), ("full", "glue/rte")}),
        (["--tasks", "*/cola", "--methods", "full"], {("full", "glue/cola")}),
        (["--where", "seed=0", "--where", "method=full", "--tasks", "glue/rte"], {("full", "glue/rte")}),
        (
            ["--backbone", "minilm", "--source", "embedded", "--where", "task=glue/rte", "--methods", "full"],
            {("full", "glue/rte")},
        ),
    ],
)
def test_filters(runs: Path, words: list[str], kept: set[tuple[str, str]], capsys: Captured) -> None:
    assert leaderboard("--runs", runs, "--format", "csv", *words) == 0
    assert rows(capsys.readouterr().out) == kept


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--methods", "lorra"], 2, ["lorra", "Did you mean 'lora'"]),
        (["--where", "seed"], 2, ["is not a condition"]),
        (["--where", "seed=9"], 2, ["no run matches"]),
        (["--baseline", "ful"], 2, ["'ful'", "rows: full, lora", "Did you mean 'full'"]),
        (["--format", "pdf"], 2, ["unknown value 'pdf'", "md, csv, tex, json, html"]),
        (["serve", "--port", "70000"], 2, ["--port", "from 0 to 65535"]),
        (["serv"], 2, ["serv", "Did you mean 'serve'"]),
        (["--output", "/proc/none/x.md"], 3, ["cannot write /proc/none/x.md"]),
        (["--picture", "/proc/none/x.png"], 3, ["cannot write /proc/none/x.png"]),
        (["--runs", "/none"], 3, ["no records in /none", "no such folder", "bench run"]),
    ],
)
def test_what_is_wrong_is_said(runs: Path, words: list[str], code: int, told: list[str], capsys: Captured) -> None:
    assert leaderboard("--runs", runs, *words) == code
    err = capsys.readouterr().err
    assert [word for word in told if word not in err] == []


def test_an_empty_folder_is_exit_3(tmp_path: Path, capsys: Captured) -> None:
    assert leaderboard("--runs", tmp_path) == 3
    assert "the folder is empty" in capsys.readouterr().err


def test_a_note_says_that_no_row_has_published_scores(runs: Path, capsys: Captured) -> None:
    assert leaderboard("--runs", runs, "--with-published") == 0
    shown = capsys.readouterr()
    assert "note: there are published scores for BERT-base-cased" in shown.err and "published" not in shown.out


def test_a_picture(runs: Path, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "board.png"
    assert leaderboard("--runs", runs, "--picture", path) == 0
    assert path.read_bytes().startswith(b"\x89PNG") and capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "start"), [("a.pdf", b"%PDF"), ("a.svg", b"<?xml"), ("a.html", b"<!doctype html>")])
def test_the_name_of_a_picture_decides_its_format(runs: Path, tmp_path: Path, name: str, start: bytes) -> None:
    assert leaderboard("--runs", runs, "--picture", tmp_path / name) == 0
    first = (tmp_path / name).read_bytes()
    assert first.startswith(start)
    assert leaderboard("--runs", runs, "--picture", tmp_path / name) == 0
    assert (tmp_path / name).read_bytes() == first, "no time of drawing in it"


def test_an_unknown_ending_is_refused_before_anything_is_read(tmp_path: Path, capsys: Captured) -> None:
    assert leaderboard("--runs", tmp_path / "none", "--picture", tmp_path / "a.jpg") == 2
    assert "known: .png, .pdf, .svg, .html" in capsys.readouterr().err


LABELS = [["--label", "lora=LoRA_{ours} & 50 %"], ["--label", "lora=A", "--label", "full=B", "--baseline", "lora"]]


def test_rows_have_the_labels_that_they_are_given(runs: Path, capsys: Captured) -> None:
    assert leaderboard("--runs", runs, "--format", "tex", *LABELS[0]) == 0
    assert "LoRA\\_\\{ours\\} \\& 50 \\% & " in capsys.readouterr().out
    assert leaderboard("--runs", runs, "--format", "csv", *LABELS[1]) == 0
    table = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert {row["row"] for row in table} == {"A", "B"} and {row["method"] for row in table} == {"lora", "full"}
    assert leaderboard("--runs", runs, *LABELS[1]) == 0
    assert "vs A" in capsys.readouterr().out, "the baseline too"


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["lra=X"], "no row is 'lra'"),
        (["lora"], "NAME=TEXT"),
        (["lora="], "NAME=TEXT"),
        (["lora=X", "lora=Y"], "given twice"),
        (["lora=X", "full=X"], "two rows would be 'X'"),
    ],
)
def test_labels_that_name_nothing_or_two_rows_are_refused(
    runs: Path, labels: list[str], reason: str, capsys: Captured
) -> None:
    words = [word for label in labels for word in ("--label", label)]
    assert leaderboard("--runs", runs, *words) == 2
    assert reason in capsys.readouterr().err


@pytest.fixture
def results(runs: Path, capsys: Captured) -> Path:
    """A results folder whose tables are those of its records."""
    (runs / ("0" * 16) / record.FILE).unlink()
    assert leaderboard("--update", runs.parent) == 0
    capsys.readouterr()
    return runs.parent


def test_results_are_checked_against_their_records(results: Path, capsys: Captured) -> None:
    assert {path.name for path in results.glob("leaderboard.*")} == {f"leaderboard.{name}" for name in FORMATS}
    assert leaderboard("--check", results) == 0
    assert "match the records" in capsys.readouterr().out


@pytest.mark.parametrize("name", FORMATS)
def test_a_number_changed_in_a_rendered_file_is_exit_4(results: Path, name: str, capsys: Captured) -> None:
    path = results / f"leaderboard.{name}"
    text = path.read_text(encoding="utf-8")
    assert "0.61" in text
    path.write_text(text.replace("0.61", "0.62"), encoding="utf-8")
    assert leaderboard("--check", results) == 4
    err = capsys.readouterr().err
    assert f"absent or different: leaderboard.{name}" in err and "--update" in err


def test_a_record_that_changed_is_exit_4_and_a_missing_file_too(results: Path, capsys: Captured) -> None:
    path = next((results / "runs").glob("*/record.json"))
    one = record.read(path)
    record.write(structs.replace(one, params=structs.replace(one.params, trainable=1_068_000)), path.parent)
    (results / "leaderboard.tex").unlink()
    assert leaderboard("--check", results) == 4
    assert (
        "leaderboard.md, leaderboard.csv, leaderboard.tex, leaderboard.json, leaderboard.html"
        in capsys.readouterr().err
    )


def test_a_page_with_another_plotly_is_the_same_page(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import plotly.offline

    monkeypatch.setattr(plotly.offline, "get_plotlyjs", lambda: "another version")
    assert leaderboard("--check", results) == 0


def test_results_without_records_or_with_a_broken_one_are_exit_3(
    results: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert leaderboard("--check", tmp_path / "none") == 3
    next((results / "runs").glob("*/record.json")).write_text("{")
    assert leaderboard("--check", results) == 3
    assert leaderboard("--update", results) == 3
    assert "a record is broken" in capsys.readouterr().err
