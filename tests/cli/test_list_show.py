"""`bench list` and `bench show`: text for people, JSON for programs, problems on stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from bench.cli import BROKEN_PIPE, list_runs, main
from bench.core import registry
from bench.core.text import dump_json, table
from bench.records import index, record

MakeRecord = Callable[..., dict[str, Any]]


@pytest.fixture
def out(tmp_path: Path, make_record: MakeRecord) -> Path:
    """Two good runs and a broken one."""
    for seed, state, changes in ((0, "done", {}), (1, "failed", {"metrics": None, "lr": None, "cost": None})):
        error = {"what": "went wrong", "known": "this", "todo": "that"} if state == "failed" else None
        made = make_record(spec={"seed": seed}, state=state, error=error, **changes)
        record.write(made, record.folder(tmp_path, made.run_id))
    (tmp_path / ("0" * 16)).mkdir()
    (tmp_path / ("0" * 16) / "record.json").write_text("{")
    return tmp_path


@pytest.fixture
def broken_method(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(registry.BUILTIN["methods"], "theirs", registry.Entry("no_such_package.methods:Theirs"))
    registry.entries.cache_clear()
    yield
    monkeypatch.undo()
    registry.entries.cache_clear()


@pytest.mark.parametrize("kind", ["methods", "tasks", "backbones"])
def test_list_names_everything_registered(kind: registry.Kind, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[1:]]
    follows = {"peft:": "TUNER", "runs:": "RUN", "timm:": "NAME"}
    more = [f"{prefix}{follows[prefix]}" for prefix in registry.PREFIXES.get(kind, ())]
    known = [*registry.entries(kind), *more]
    assert [name if name in more else registry.family(name.replace("[", "")) for name in names] == known
    assert kind != "tasks" or {"table:FILE", "corpus[:PATH]"} <= {*names}
    assert not any("cannot be imported" in line for line in lines)
    assert main(["list", kind, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == known
    assert all(row["summary"] in line for row, line in zip(rows, lines[1:], strict=True))


@pytest.mark.usefixtures("broken_method")
def test_a_method_that_cannot_be_read_is_listed_with_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("theirs"))
    assert "cannot be imported: no_such_package.methods:Theirs: ModuleNotFoundError" in line
    assert main(["show", "theirs"]) == 0
    assert "no_such_package" in capsys.readouterr().out
    assert main(["run", "--method", "theirs", "--task", "glue"]) == 3


def test_list_tasks_shows_the_members_of_a_suite(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "tasks", "--json"])
    glue = next(row for row in json.loads(capsys.readouterr().out) if row["name"] == "glue")
    assert sorted(glue["members"]) == ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]


def test_list_runs(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "runs", "--runs", str(out)]) == 0
    shown = capsys.readouterr()
    rows = {line.split()[5]: line for line in shown.out.splitlines()[1:]}
    assert "done" in rows["0"]
    assert "matthews 0.410" in rows["0"]
    assert rows["1"].split()[1] == "failed"
    assert rows["1"].endswith("–")
    assert "0000000000000000" in shown.err, "a broken record is named, on stderr"
    assert main(["list", "runs", "--runs", str(out), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_list_runs_as_json_is_one_list_of_whole_records(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "runs", "--runs", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    records, [problem] = record.load_all(out)
    assert shown.out == dump_json([run.to_json() for run in records]) + "\n"
    assert problem.what in shown.err
    assert main(["list", "runs", "--runs", str(out / "none"), "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize("most", [0, 2000])
def test_list_runs_of_a_large_folder(
    most: int, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("LEAST", 1), ("SETTLED_NS", -(10**9)), ("MANY", 0)):
        monkeypatch.setattr(index, name, value)
    monkeypatch.setattr(list_runs, "SUMMED", 1)
    monkeypatch.setattr(list_runs, "MOST_WITH_OPTIONS", most)
    assert main(["list", "runs", "--runs", str(out)]) == 0
    first = capsys.readouterr()
    (out / ("0" * 16) / "record.json").unlink()
    monkeypatch.setattr(index, "read", None)
    assert main(["list", "runs", "--runs", str(out)]) == 0
    second = capsys.readouterr()
    assert first.out == second.out
    assert "note: " in first.err and first.err.count("note: ") == 1
    assert second.err == "2 runs: 1 done, 1 failed\n"


@pytest.fixture
def ranks(tmp_path: Path, make_record: MakeRecord) -> Path:
    """LoRA at three ranks, one of them in more steps, and a linear probe; a failed run has no score."""
    error = {"what": "it broke", "known": "", "todo": ""}
    for seed, (rank, steps, value) in enumerate([(4, 150, 0.3), (16, 150, 0.5), (8, 300, 0.4), (8, 150, None)]):
        failed = {"state": "failed", "error": error, "metrics": None}
        made = make_record(
            spec={"seed": seed, "max_steps": steps, "options": {"method": {"rank": rank}}},
            **(failed if value is None else {"metrics": {"primary": {"value": value}}}),
        )
        record.write(made, record.folder(tmp_path, made.run_id))
    made = make_record(spec={"method": "linear", "options": {"method": {"rank": None}}}, ranks=[])
    record.write(made, record.folder(tmp_path, made.run_id))
    return tmp_path


def _shown(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> list[list[str]]:
    assert main(["list", "runs", *map(str, argv)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    starts = [header.index(name) for name in ("method", "seed", "score", "options that differ") if name in header]
    return [[line[at:].split("  ")[0] for at in starts] for line in lines]


def test_list_runs_sorts_and_shows_the_options_that_differ(ranks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = _shown(capsys, "--runs", ranks, "--sort", "score", "--reverse", "--where", "method=lora")
    assert lines == [
        ["lora", "1", "matthews 0.500", "max_steps=150, rank=16"],
        ["lora", "2", "matthews 0.400", "max_steps=300, rank=8"],
        ["lora", "0", "matthews 0.300", "max_steps=150, rank=4"],
        ["lora", "3", "–", "max_steps=150, rank=8"],
    ]
    assert [line[1] for line in _shown(capsys, "--runs", ranks, "--sort", "max_steps,method.rank")] == [*"03102"]


def test_list_runs_filters(ranks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = _shown(capsys, "--runs", ranks, "--where", "method.rank=8", "--where", "state=done")
    assert lines == [["lora", "2", "matthews 0.400"]]  # nothing differs
    assert (
        main(["list", "runs", "--runs", str(ranks), "--json", "--where", "seed>0", "--sort", "lr,seed", "--reverse"])
        == 0
    )
    assert [one["spec"]["seed"] for one in json.loads(capsys.readouterr().out)] == [3, 2, 1]
    lines = _shown(capsys, "--runs", ranks, "--where", "method=lora", "--sort", "provenance.python,seed", "--reverse")
    assert [line[1] for line in lines] == [*"3210"]


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["runs", "--where", "seed=99"], "no run matches all filters"),
        (["runs", "--where", "seed"], "--where 'seed' is not a condition"),
        (["runs", "--sort", "scor"], "--sort: no run has 'scor'"),
        (["methods", "--sort", "name"], "--where, --sort and --reverse are of runs, not of methods"),
    ],
)
def test_list_refuses(argv: list[str], what: str, ranks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *argv, "--runs", str(ranks)]) == 2
    assert what in capsys.readouterr().err


def test_list_runs_marks_trials(tmp_path: Path, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_record(spec={"holdout": 100})
    record.write(made, record.folder(tmp_path, made.run_id))
    main(["list", "runs", "--runs", str(tmp_path)])
    assert "glue/cola (trial)" in capsys.readouterr().out


def test_list_runs_of_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "runs", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path}\n"


def test_show_method_has_equation_options_and_how_to_set_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "lora"]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert "2106.09685" in out
    assert lines["method.rank"].split()[1:3] == ["int", "8"]
    assert "kaiming|normal" in lines["method.init"]
    assert "true" in lines["head.trainable"]
    assert "--set method." in out


def test_show_method_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "deeplora", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    rank = next(option for option in shown["options"] if option["name"] == "rank")
    assert (shown["kind"], rank["default"], rank["type"]) == ("method", 8, "int or none")
    assert shown["needs"] == ["image", "text", "vector"]


def test_show_suite_and_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "glue"]) == 0
    suite = capsys.readouterr().out
    assert main(["show", "glue/cola", "--json"]) == 0
    members = json.loads(capsys.readouterr().out)["members"]
    assert suite.count("\nglue/") == 9
    assert [(c["name"], c["primary"]) for c in members] == [("glue/cola", ["matthews"])]
    assert "Raises:" not in suite


def test_show_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "minilm"]) == 0
    shown = capsys.readouterr().out
    assert "--backbone minilm" in shown and "backbone.dropout" in shown


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        *(("deeplra", "'deeplora'"), ("glue/rt", "'glue/rte'"), ("rte", "'glue/rte'"), ("zzz", "list runs")),
        *(("LoRA", "'lora'"), ("SST-2", "'glue/sst2'"), ("GLUE", "'glue'"), ("Deep_LoRA", "'deeplora'")),
    ],
)
def test_show_unknown_name(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", name]) == 2
    assert hint in capsys.readouterr().err


def test_show_run(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = sorted(record.load_all(out)[0], key=lambda r: r.spec.seed)
    assert main(["show", good.run_id[:6], "--runs", str(out)]) == 0
    text = capsys.readouterr().out
    for part in ("lora on glue/cola, seed 0", "matthews 0.4100 on dev", "68,000 of 22,780,000 parameters (0.30%)"):
        assert part in text
    assert text.count("encoder.layer.") == len(good.ranks)
    assert "bench run" in text
    assert main(["show", bad.run_id, "--runs", str(out)]) == 0
    text = capsys.readouterr().out
    assert "failed" in text
    assert "went wrong\nthis\nthat" in text
    assert main(["show", good.run_id, "--runs", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"kind": "run", **good.to_json()}


def test_show_run_with_selection_and_epochs(
    tmp_path: Path, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [
        {"lr": 1e-3, "value": 0.5, "run_id": "a" * 16, "state": "done"},
        {"lr": 1e-2, "value": None, "run_id": "b" * 16, "state": "diverged"},
    ]
    selection = {"trials": trials, "metric": "accuracy", "split": "holdout", "task": "glue/sst2", "chosen": 1e-3}
    made = make_record(
        spec={"lr": None, "epochs": 2.0, "max_steps": None}, selection=selection, ranks=[], warnings=["hm"]
    )
    record.write(made, record.folder(tmp_path, made.run_id))
    assert main(["show", made.run_id, "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "0.001, chosen by accuracy on glue/sst2 holdout (0.001 → 0.500, 0.01 → –)" in text
    assert "2 epochs" in text
    assert "warning: hm" in text
    assert "rank of ΔW" not in text


def test_show_run_with_a_report(tmp_path: Path, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]) -> None:
    """Which layers kept rank, and the budget's course."""
    report = {
        "budget": {"initial": 24, "target": 16},
        "course": [{"step": 3, "budget": 20}, {"step": 5, "budget": 16}],
        "share": 0.25,
        "none": [],
    }
    made = make_record(report=report, spec={"options": {"penalty": {"nuclear": 0.5}}})
    none = {"nominal": 0, "stable": 0.0, "effective": 0.0, "energy90": 0, "norm": 0.0}
    ranks = [structs.replace(layer, **given) for layer, given in zip(made.ranks, ({"nominal": 16}, none), strict=True)]
    made = structs.replace(made, ranks=tuple(ranks))
    record.write(made, record.folder(tmp_path, made.run_id))
    assert main(["show", made.run_id, "--runs", str(tmp_path)]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    for line in (
        ["budget", "initial=24,", "target=16"],
        ["step", "budget"],
        ["3", "20"],
        ["5", "16"],
        ["share", "0.25"],
    ):
        assert line in words
    assert ["penalty", "nuclear=0.5,", "form=exact,", "of=delta"] in words
    kept = {line[0]: line[2] for line in words if line and line[0].startswith("encoder.layer.")}
    assert list(kept.values()) == ["16", "0"]


def test_show_run_has_the_largest_class_beside_an_accuracy(
    tmp_path: Path, make_record: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_record(metrics={"majority": {"dev": 0.68}})
    record.write(made, record.folder(tmp_path, made.run_id))
    assert main(["show", made.run_id, "--runs", str(tmp_path)]) == 0
    assert "matthews 0.4100, accuracy 0.7000 (largest class 0.6800)" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["show", "deeplora"], ["list", "backbones"]])
def test_a_reader_that_leaves_early_is_no_error(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # a short text then stays in the buffer until the end
    line = [sys.executable, "-m", "bench", *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == BROKEN_PIPE


def test_an_ascii_terminal_gets_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "show", "deeplora"], capture_output=True, text=True, check=True
    )
    assert "?W = W_L" in done.stdout


def test_table_aligns_and_keeps_rows_on_one_line() -> None:
    text = table(("a", "b", "c"), [("W̃", "x", "long " * 60), ("wide one", "", "z")])
    lines = text.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("W̃         x  long")
    assert lines[2] == "wide one     z"


def test_show_run_prints_the_curve_over_dropped_adapters(
    tmp_path: Path, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [{"n": n, "primary": 0.5 - n / 8, "metrics": {"dev": {"matthews": 0.0}}} for n in (1, 2)]
    made = make_record(spec={"method": "adapterdrop"}, sweep=points)
    record.write(made, record.folder(tmp_path, made.run_id))
    assert main(["show", made.run_id, "--runs", str(tmp_path)]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "by n dropped" in line]
    assert line.split("by n dropped")[1].strip() == "1: 0.3750, 2: 0.2500"


def test_show_run_with_scores_on_the_way_and_a_trained_backbone(
    tmp_path: Path, make_record: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"step": step, "metrics": {"dev": {"accuracy": value}}} for step, value in ((10, 0.25), (20, 0.5))]
    chain = {"run_id": "a" * 16, "group_id": "b" * 16, "method": "mae", "task": "digits", "backbone": "vit"}
    reading = {"mode": "grey", "mean": [0.25, 0.5], "left_out": {}}
    backbone = {"name": f"runs:{'a' * 16}", "parent": {**chain, "parent": None}}
    cost = {"optimizer_bytes": 3 * 2**20}
    made = make_record(evaluations=rows, source={"reading": reading}, cost=cost, backbone=backbone)
    record.write(made, record.folder(tmp_path, made.run_id))
    assert main(["show", made.run_id, "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert ["step", "accuracy"] in lines and ["10", "0.2500"] in lines and ["20", "0.5000"] in lines
    assert "← mae on digits from vit" in text
    assert ["mean", "0.25,", "0.5"] in lines and ["mode", "grey"] in lines
    assert "3.0 MiB of state" in text


@pytest.mark.parametrize(("higher", "value", "step"), [(True, "0.9900", 430), (False, "0.0100", 70)])
def test_show_run_prints_a_long_course_briefly_with_its_best(
    tmp_path: Path, make_record: MakeRecord, capsys: pytest.CaptureFixture[str], higher: bool, value: str, step: int
) -> None:
    """A hundred evaluations; the best of them is named as what it is, and the score stays the last one."""
    extremes = {70: 0.01, 430: 0.99}
    rows = [
        {"step": at, "metrics": {"dev": {"matthews": extremes.get(at, 0.5), "accuracy": 0.75}}}
        for at in range(10, 1001, 10)
    ]
    primary = {"value": 0.5, "higher_is_better": higher}
    made = make_record(
        evaluations=rows, metrics={"primary": primary}, cost={"steps": 1000}, spec={"evaluate": 10, "max_steps": 1000}
    )
    record.write(made, record.folder(tmp_path, made.run_id))
    assert main(["show", made.run_id, "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    score, best, *_ = [line.split() for line in text.splitlines() if line.startswith(("score", "  best"))]
    assert score[:3] == ["score", "matthews", "0.5000"]
    assert best[:6] == ["best", "matthews", value, "at", "step", f"{step},"] and "chosen on dev" in text
    course = text.split("dev during training, 13 of 100 evaluations\n")[1].split("\n\n")[0].splitlines()
    assert course[0].split() == ["step", "matthews", "accuracy"] and len(course) == 14
    assert [line.split() for line in course if "best" in line] == [[str(step), value, "0.7500", "best"]]
    assert course[1].split()[0] == "10" and course[-1].split()[0] == "1000"
    assert "after every 10 steps" in text


def test_show_a_run_s_folder(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = next(path.parent for path in out.glob("*/record.json"))
    assert main(["show", folder.name, "--runs", str(out)]) == 0
    shown = capsys.readouterr().out
    assert main(["show", str(folder) + "/"]) == 0
    assert capsys.readouterr().out == shown
