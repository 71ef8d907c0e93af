"""`bench run`: flags become a Request, bad words are errors in three parts, codes are handed on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bench
from bench.cli import main
from bench.cli import run as run_verb
from bench.config.overrides import Overrides
from bench.core.errors import DataProblem, UsageError
from bench.harness.request import Request
from bench.records.data import DataRequest

BASE = ("run", "--method", "lora", "--task", "glue/rte")
DEFAULT = Request(methods=("lora",), tasks=("glue/rte",))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., Any]) -> SimpleNamespace:
    """In place of plan and runner: keeps the request; the runner yields `states` and then raises `raises`."""
    seen = SimpleNamespace(request=None, verbose=None, raises=None, states=["done"], broken=())

    class Preempted(BaseException):
        pass

    def make_plan(request: Request) -> Any:
        seen.request = request
        json = {"runs": [{"run_id": "a"}], "skipped": []}
        runs: Any = {"runs": ("a",), "broken": seen.broken, "in_order": list}
        return SimpleNamespace(request=request, to_json=lambda: json, **runs)

    def run_plan(plan: Any, *, jobs: Any, verbose: bool, nodes: object) -> Iterator[Any]:
        seen.jobs, seen.verbose = jobs, verbose
        error = {"what": "went wrong", "known": "", "todo": ""}
        for state in seen.states:
            failed = {} if state == "done" else {"metrics": None, "error": error}
            yield make_record(state=state, **failed)
        if seen.raises:
            raise seen.raises

    seen.Preempted = Preempted
    runner = SimpleNamespace(run_plan=run_plan, Preempted=Preempted)
    monkeypatch.setitem(sys.modules, "bench.harness.planner", SimpleNamespace(make_plan=make_plan))
    one = SimpleNamespace(to_json=lambda: {"state": "new"})
    looked = SimpleNamespace(runs=(one,), to_json=lambda: {"runs": 1}, sizes_unknown=False)
    monkeypatch.setitem(sys.modules, "bench.harness.outlook", SimpleNamespace(forecast=lambda plan: looked))
    monkeypatch.setitem(sys.modules, "bench.harness.plan_text", SimpleNamespace(describe=lambda plan, found: "1 run"))
    monkeypatch.setitem(sys.modules, "bench.harness.runner", runner)
    monkeypatch.setattr(run_verb, "check", lambda: None)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    return seen


FLAGS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "methods": (["--method", "full,deeplora"], {"methods": ("lora", "full", "deeplora")}),
    "tasks": (["--task", "glue"], {"tasks": ("glue/rte", "glue")}),
    "backbones": (
        ["--backbone", "minilm,google-bert/bert-base-cased"],
        {"backbones": ("minilm", "google-bert/bert-base-cased")},
    ),
    "seeds": (["--seeds", "0,1,2"], {"seeds": (0, 1, 2)}),
    "match_params": (["--match-params", "full"], {"match_params": "full"}),
    "data": (["--data", "embedded"], {"data": DataRequest(data="embedded")}),
    "max_steps": (["--max-steps", "7"], {"max_steps": 7}),
    "epochs": (["--epochs", "0.5"], {"epochs": 0.5}),
    "train_samples": (["--train-samples", "16"], {"train_samples": 16}),
    "batch_size": (["--batch-size", "8"], {"batch_size": 8}),
    "lrs": (["--lr", "3e-4,1e-3"], {"lrs": (3e-4, 1e-3)}),
    "select": (["--select", "lr"], {"select": ("lr",)}),
    "trials": (["--select", "lr", "--trials", "20"], {"select": ("lr",), "trials": 20}),
    "select_on": (["--select", "lr", "--select-on", "glue/sst2"], {"select": ("lr",), "select_on": "glue/sst2"}),
    "widen": (["--select", "lr", "--widen", "1"], {"select": ("lr",), "widen": 1}),
    "evaluate": (["--evaluate", "epoch"], {"evaluate": "epoch"}),
    "overrides": (
        ["--set", "method.rank=4", "--set", "method.target=a,b=c"],
        {"overrides": Overrides({("method", "rank"): "4", ("method", "target"): "a,b=c"})},
    ),
    "precision": (["--precision", "bf16-mixed"], {"precision": "bf16-mixed"}),
    "accelerator": (["--accelerator", "cpu"], {"accelerator": "cpu"}),
    "devices": (["--devices", "2"], {"devices": 2}),
    "track": (["--track", "wandb"], {"track": "wandb"}),
    "out": (["--out", "elsewhere"], {"out": Path("elsewhere")}),
    "strict": (["--strict"], {"strict": True}),
    "retry": (["--retry"], {"retry": True}),
}


def test_every_field_of_a_request_has_its_flag() -> None:
    assert {field.name for field in fields(Request)} == set(FLAGS)


@pytest.mark.parametrize("name", FLAGS)
def test_flag_sets_its_field_and_no_other(name: str, stub: SimpleNamespace) -> None:
    words, changes = FLAGS[name]
    assert main([*BASE, *words]) == 0
    assert stub.request == replace(DEFAULT, **changes)


def test_evaluate_takes_a_number_of_steps_too(stub: SimpleNamespace) -> None:
    assert main([*BASE, "--evaluate", "25"]) == 0
    assert stub.request == replace(DEFAULT, evaluate=25)


def test_without_flags_the_request_is_the_default(stub: SimpleNamespace) -> None:
    assert main(BASE) == 0
    assert stub.request == DEFAULT
    assert (stub.verbose, stub.jobs) == (False, 1)


def test_flags_of_this_command_alone_are_no_part_of_the_request(stub: SimpleNamespace) -> None:
    for text, jobs in (("3", 3), ("auto", "auto")):
        assert main([*BASE, "--jobs", text]) == 0
        assert (stub.request, stub.jobs) == (DEFAULT, jobs)
    for name, value in (("on_oom", "halve"), ("strategy", "ddp"), ("nodes", "1")):
        assert main([*BASE, f"--{name.replace('_', '-')}", value]) == 0
        assert stub.request == replace(DEFAULT, overrides=Overrides({("runtime", name): value}))


def test_the_exit_code_says_how_the_runs_ended(stub: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    ends = [
        (["done"], None, 0, "1 done, 0 failed"),
        (["done", "failed"], None, 1, "1 done, 1 failed"),
        (["done"], KeyboardInterrupt(), 130, "1 done, 0 failed"),
        ([], stub.Preempted(), 75, "1 not run: the same command goes on"),
    ]
    for stub.states, stub.raises, code, said in ends:
        assert main([*BASE, "--json", "-v"]) == code
        out, err = capsys.readouterr()
        assert [record["state"] for record in json.loads(out)["runs"]] == stub.states
        assert said in err
    assert stub.verbose is True
    stub.states, stub.raises, stub.broken = ["done"], None, ("something",)
    assert main(BASE) == 1, "something that was asked for could not be opened"
    assert "| lora" in capsys.readouterr().out


def test_data_dirs_and_bench_data(stub: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    odd = tmp_path / "a=b"
    odd.mkdir()
    words = [
        "--data-dir",
        "glue=~/glue",
        "--data-dir",
        f"glue/cola={tmp_path}",
        "--data-dir",
        str(odd),
        "--data",
        "dir",
    ]
    assert main([*BASE, *words]) == 0
    dirs = (("glue", Path.home() / "glue"), ("glue/cola", tmp_path), (None, odd))
    assert stub.request.data == DataRequest(data="dir", dirs=dirs, parent=tmp_path)


def test_dry_run_prints_the_plan_and_stops(stub: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, "--dry-run"]) == 0
    assert capsys.readouterr().out == "1 run\n"
    assert main([*BASE, "--dry-run", "--json"]) == 0
    shown = {"runs": [{"run_id": "a", "state": "new"}], "skipped": [], "total": {"runs": 1}}
    assert json.loads(capsys.readouterr().out) == shown
    assert stub.verbose is None


WRONG: list[tuple[str, str, str]] = [
    ("rnu", "unknown verb 'rnu'", "Did you mean 'run'?"),
    ("run --metod lora --task glue", "unknown flag '--metod'", "Did you mean '--method'?"),
    ("run --method lora --task glue --seed=1", "unknown flag '--seed=1'", "Did you mean '--seeds'?"),
    ("run --meth lora --task glue", "unknown flag '--meth'", "--method"),
    ("--versio", "unknown flag '--versio'", "Did you mean '--version'?"),
    ("run --task glue", "--method is missing", "lora"),
    ("run --method lora", "--task is missing", "glue"),
    ("run --method lorra --task glue", "unknown method 'lorra'", "Did you mean 'lora'?"),
    ("run --method lora --task glu", "unknown task 'glu'", "Did you mean 'glue'?"),
    ("run --method lora --task rte", "unknown task 'rte'", "Did you mean 'glue/rte'?"),
    ("run --method lora --task glue/rt", "unknown task 'glue/rt'", "Did you mean 'glue/rte'?"),
    ("run --method lora --task nope:x", "unknown task 'nope'", "glue"),
    ("run --method lora,lora --task glue", "--method: lora is given twice", "Keep one"),
    ("run --method lora, --task glue", "--method: 'lora,' has an empty element", "comma"),
    ("run --method lora --task glue --set method.rnk=8", "unknown option 'method.rnk'", "Did you mean 'method.rank'?"),
    ("run --method lora --task glue --seeds 0,0", "--seeds: 0 is given twice", "Keep one"),
    ("run --method lora --task glue --seeds=-1", "--seeds: '-1' is not a whole number from 0", "Give"),
    ("run --method lora --task glue --seeds 4294967296", "'4294967296' is not a whole number from 0", "Give"),
    ("run --method lora --task glue --seeds 1.5", "--seeds: '1.5' is not a whole number", "Give"),
    ("run --method lora --task glue --max-steps 0", "--max-steps: '0' is not a whole number of at least 1", "Give"),
    ("run --method lora --task glue --batch-size -3", "--batch-size: '-3' is not a whole number", "Give"),
    ("run --method lora --task glue --devices x", "--devices: 'x' is not a whole number", "Give"),
    ("run --method lora --task glue --jobs two", "--jobs: 'two' is neither a whole number", "such as 2, or auto"),
    ("run --method lora --task glue --jobs 0", "'0' is neither a whole number of at least 1 nor auto", "each core"),
    ("run --method lora --task glue --train-samples 0", "--train-samples: '0'", "Give"),
    ("run --method lora --task glue --epochs inf", "--epochs: 'inf' is not a positive number", "finite"),
    ("run --method lora --task glue --lr nan", "--lr: 'nan' is not a positive number", "finite"),
    ("run --method lora --task glue --lr 1e-3,0", "--lr: '0' is not a positive number", "finite"),
    ("run --method lora --task glue --lr=-1e-3", "--lr: '-1e-3' is not a positive number", "finite"),
    ("run --method lora --task glue --lr 1e-3,0.001", "--lr: 0.001 is given twice", "Keep one"),
    ("run --method lora --task glue --max-steps 3 --epochs 2", "not allowed with", "bench run --help"),
    ("run --method lora --task glue --data embeded", "--data: unknown value 'embeded'", "Did you mean 'embedded'?"),
    ("run --method lora --task glue --data dir", "--data dir without a directory", "--data-dir"),
    ("run --method lora --task glue --data hub --data-dir x", "--data hub reads no directory", "Leave one"),
    ("run --method lora --task glue --data-dir glu=x", "unknown task 'glu'", "Did you mean 'glue'?"),
    ("run --method lora --task glue --data-dir glue=", "names no directory", "Give a directory"),
    ("run --method lora --task glue --data-dir x --data-dir y", "given twice for all tasks", "NAME=DIR"),
    ("run --method lora --task glue --precision fp8", "--precision: unknown value 'fp8'", "32-true"),
    ("run --method lora --task glue --accelerator gpus", "--accelerator: unknown value", "Did you mean 'gpu'?"),
    ("run --method lora --task glue --track wandbb", "--track: unknown value", "Did you mean 'wandb'?"),
    ("run --method lora --task glue --select rank", "--select rank: neither lr nor an option", "'method.rank'"),
    ("run --method lora --task glue --select ranks", "--select ranks: neither lr nor an option", "'method.rank'"),
    ("run --method lora --task glue --select method.rnk", "unknown option 'method.rnk'", "'method.rank'"),
    ("run --method lora --task glue --select method.rank", "--select method.rank: there is nothing", "=A,B,C"),
    ("run --method lora --task glue --select method.rank --set method.rank=4", "there is nothing to choose", "=A,B,C"),
    ("run --method lora --task glue --select method.rank --set method.rank=4,x", "expected a whole number", "type"),
    ("run --method lora --task glue --select method.rank --set method.rank=4,0", "method.rank=0", "Choose"),
    ("run --method lora --task glue --select task.max_length", "a selection cannot choose it", "for a run each"),
    ("run --method lora --task glue --select runtime.micro_batch", "a selection cannot choose it", "one value"),
    ("run --method lora --task glue --select method.start", "a selection cannot choose it", "for a run each"),
    ("run --method lora --task glue --select lr,lr", "--select: lr is given twice", "Keep one"),
    ("run --method lora --task glue --trials 20", "--trials 20 without --select", "--select lr"),
    ("run --method lora --task glue --select lr --trials 1", "--trials 1", "2 or more"),
    ("run --method lora --task glue --select lr --trials 9 --widen 1", "--widen 1 with --trials 9", "Leave one"),
    ("run --method lora --task glue --select-on glue/sst2", "--select-on without --select", "--select lr"),
    ("run --method lora --task glue --select lr --select-on sst2", "unknown task 'sst2'", "glue/sst2"),
    ("run --method lora --task glue --select lr --lr 1e-3", "nothing to choose from", "several"),
    (
        "run --method lora --task glue --evaluate 0",
        "--evaluate 0 is neither a number of steps nor epoch",
        "at least 1, or epoch",
    ),
    (
        "run --method lora --task glue --evaluate=-5",
        "--evaluate -5 is neither a number of steps nor epoch",
        "at least 1, or epoch",
    ),
    (
        "run --method lora --task glue --evaluate epochs",
        "--evaluate 'epochs' is neither a number of steps nor epoch",
        "at least 1, or epoch",
    ),
    (
        "run --method lora --task glue --evaluate 1.5",
        "--evaluate '1.5' is neither a number of steps nor epoch",
        "at least 1, or epoch",
    ),
    ("run --method lora --task glue --out", "--out: expected one argument", "bench run --help"),
    ("run --method lora --task glue more", "'more' belongs to no flag", "commas"),
]


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(("line", "what", "helps"), WRONG)
def test_wrong_words_are_exit_2_in_three_parts(
    line: str, what: str, helps: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main([*line.split(), "--json"] if line.startswith("run") and not line.endswith("--out") else line.split()) == 2
    )
    out, err = capsys.readouterr()
    first, *rest = err.splitlines()
    assert what in first
    assert first.startswith("error: ")
    assert len(rest) >= 2, "what, known, todo"
    assert helps in " ".join(rest)
    if out:
        error = json.loads(out)["error"]
        assert [*error] == ["what", "known", "todo"]
        assert all(error.values())
        assert error["what"] in first


@pytest.mark.parametrize("jobs", ["two", 0, 1.5])
def test_jobs_in_python_are_checked_before_anything_is_opened(jobs: Any) -> None:
    with pytest.raises(UsageError, match=f"jobs: '{jobs}' is neither a whole number of at least 1 nor auto"):
        bench.run("lora", "digits", jobs=jobs)


def test_wrong_words_import_neither_plan_nor_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bench.harness.planner", None)  # importing it now fails
    monkeypatch.setattr(run_verb, "check", lambda: pytest.fail("checked too early"))
    assert main([*BASE, "--set", "method.rnk=8"]) == 2


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("a", "b", "c"), 2, "error: a\n  b\nc\n"),
        (DataProblem("a", "line 1\nline 2", "c"), 3, "error: a\n  line 1\n  line 2\nc\n"),
        (RuntimeError("first\nsecond"), 1, "error: RuntimeError: first\n"),
        (ImportError("no libfoo"), 3, "error: ImportError: no libfoo\n"),
    ],
)
def test_what_the_runner_raises_becomes_an_exit_code(
    error: BaseException, code: int, said: str, stub: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.states, stub.raises = [], error
    assert main(BASE) == code
    out, err = capsys.readouterr()
    assert err.startswith(said)
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize("error", [RuntimeError("boom"), DataProblem("boom")])
def test_tracebacks_come_with_v(error: Exception, stub: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    stub.states, stub.raises = [], error
    assert main([*BASE, "-v", "--json"]) == (3 if isinstance(error, DataProblem) else 1)
    out, err = capsys.readouterr()
    assert "Traceback" in err
    assert "boom" in json.loads(out)["error"]["what"]


def test_real_dry_run_plans_without_torch_or_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    words = [*BASE, "--seeds", "0,1", "--set", "method.rank=4", "--data", "embedded", "--dry-run", "--json"]
    assert main(words) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [(r["spec"]["seed"], r["spec"]["options"]["method"]["rank"]) for r in runs] == [(0, 4), (1, 4)]
    assert {r["spec"]["max_steps"] for r in runs} == {150}
    assert not [*tmp_path.iterdir()], "a dry run writes nothing"
    assert main([*words, "--set", "penalty.nuclear=1e-3"]) == 0
    penalised = json.loads(capsys.readouterr().out)["runs"]
    assert [r["spec"]["options"]["penalty"]["nuclear"] for r in (*runs, *penalised)] == [0, 0, 1e-3, 1e-3]
    assert not {r["run_id"] for r in runs} & {r["run_id"] for r in penalised}
    assert main([*words, "--set", "penalty.form=factor"]) == 2
    assert "penalty.nuclear" in capsys.readouterr().err
