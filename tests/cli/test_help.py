"""Help and start: every example works, nothing heavy is imported, and it is quick."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from records import list_files
from safetensors.numpy import save_file

from bench import __version__
from bench.cli import VERBS, main, run, status, verb_module, work
from bench.config.overrides import build_configs
from bench.core.errors import OK, USAGE
from bench.env import doctor
from bench.harness import plan_file
from bench.records import record
from bench.records.transfer import Outcome
from bench.tracking import account, report, sync
from leaderboard import serve

RECORDS = str(Path(__file__).parents[2] / "leaderboard" / "results" / "runs")
HEAVY = {
    "torch",
    "lightning",
    "transformers",
    "torchmetrics",
    "pandas",
    "numpy",
    "datasets",
    "wandb",
    "rich",
    "peft",
    "matplotlib",
    "plotly",
    "scipy",
}


def helped(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--help"]) == OK
    return capsys.readouterr().out


def examples(text: str) -> list[str]:
    return [line.strip() for line in text.partition("\nexamples:\n")[2].splitlines() if line.strip()]


def every_example() -> list[str]:
    """From the modules, as pytest needs them before anything runs; that the helps end in just these is tested below."""
    modules = sys.modules["bench.cli"], *map(verb_module, VERBS)
    return list(dict.fromkeys(example for module in modules for example in module.EXAMPLES))


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_ends_in_its_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = examples(helped(capsys, *filter(None, [verb])))
    module = verb_module(verb) if verb else sys.modules["bench.cli"]
    assert found == list(module.EXAMPLES) != []


@pytest.fixture
def folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., dict[str, Any]], any_id: None
) -> Path:
    """A working folder with two models and, in each folder that the examples name, runs, one beside its adapter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    others: tuple[dict[str, Any], ...] = (
        {"method": "full"},
        {"method": "deeplora"},
        {"options": {"method": {"rank": 16}}},
    )
    for out in ("runs", "results", "imported", "leaderboard/results/runs"):
        for other in others if out == "runs" else others[:2]:
            made = make_record(spec=other)
            record.write(made, record.folder(tmp_path / out, made.run_id))
        points = [{"k": 0, "value": 0.1}, {"k": 8, "value": 0.41}]
        cut = {"split": "dev", "n": 200, "whole": 0.41, "se": 0.03, "points": points, "rank_needed": 8}
        made = make_record(run_id="1f3a9c0123456789", truncation=cut)
        folder = record.folder(tmp_path / out, made.run_id)
        record.write(made, folder)
        factors = {f"backbone.model.query.factors.{i}": np.ones((8, 8), dtype=np.float32) for i in range(2)}
        head = {"head.weight": np.ones((2, 8), dtype=np.float32), "head.bias": np.ones(2, dtype=np.float32)}
        save_file(factors | head, folder / "adapter.safetensors")
        list_files(folder)
    assert main(["leaderboard", "--update", "leaderboard/results"]) == OK
    assert main(["plan", "--method", "lora", "--task", "glue/rte", "--output", "grid.yaml"]) == OK
    assert main(["export", "--records", "--runs", "results", "--output", "records.jsonl"]) == OK
    for name in ("original", "tuned"):
        (tmp_path / name).mkdir()
        save_file({"query.weight": np.eye(8, dtype=np.float32)}, tmp_path / name / "model.safetensors")
    layers = {f"layer.{i}.weight": np.eye(8, dtype=np.float32) for i in (0, 11)}
    save_file(layers, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server of W&B's is asked, and ours ends at once."""
    monkeypatch.setattr(account, "require", lambda: None)
    monkeypatch.setattr(sync, "runs", lambda path: [])
    monkeypatch.setattr(sync, "sync", lambda out, run: Outcome(run_id=run.run_id, state="sent"))
    monkeypatch.setattr(status, "looks", lambda watcher: [watcher.look()])  # `--watch` would not end
    saved = SimpleNamespace(save=lambda: None, url="https://wandb.example/report")
    monkeypatch.setattr(report, "report", lambda *path, **options: SimpleNamespace(**vars(saved), _to_model=_Model))
    monkeypatch.setattr(serve, "serve", lambda make, *where: print(len(make()["tables"]), *where) or OK)


class _Model:
    def model_dump_json(self, **options: Any) -> str:
        return "{}"


@pytest.mark.usefixtures("folders", "outside")
@pytest.mark.parametrize("example", every_example())
def test_example_works(example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(example.partition(" > ")[0])
    assert words.pop(0) == "bench"
    if words[0] == "work":  # it trains
        options, rest = work.parser().parse_known_args(words[1:])
        assert rest == [] and plan_file.read(options.plan).methods == ("lora",)
    elif words[0] == "predict" or (words[0] == "export" and "--records" not in words):  # tests/e2e has runs for them
        options, rest = verb_module(words[0]).parser().parse_known_args(words[1:])
        assert rest == [] and options.run == "1f3a9c"
    elif words[0] != "run":
        monkeypatch.setattr(doctor, "CHECKS", doctor.CHECKS[:1])  # the others are tested by themselves
        assert main(words) == OK
        shown = capsys.readouterr()
        assert shown.out.strip() or "wrote" in shown.err or "next" in shown.err
    elif "--dry-run" in words:
        assert main([*words, "--data", "embedded"]) == OK
        assert "glue/rte" in capsys.readouterr().out
    else:
        options, rest = run.parser().parse_known_args(words[1:])
        assert rest == []
        run.launcher_of(options)
        asked = run.request_of(options)
        build_configs(asked.overrides, methods=asked.methods, tasks=asked.families, backbones=asked.openers)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == OK
    assert capsys.readouterr().out == f"lowrank-bench {__version__}\n"


def test_no_words_print_the_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "examples:" in err


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list", "methods"],
        ["list", "tasks"],
        ["show", "deeplora"],
        ["status", "--runs", RECORDS],
        ["run", "-h"],
    ],
)
def test_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import json, sys\nfrom bench.cli import main\ncode = main(json.loads(sys.argv[1]))\n"
        "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]), file=sys.stderr)"
    )
    line = [sys.executable, "-c", code, json.dumps(words)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    exit_code, modules = json.loads(done.stderr)
    assert exit_code == OK
    assert not HEAVY & set(modules)


@pytest.mark.parametrize("words", [["--help"], ["list", "methods"]])
def test_answers_in_under_200_ms(words: list[str]) -> None:
    """Of processor time beyond Python's own start, best of seven: other work on the machine does not count."""

    def spent(line: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *line], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = min(spent(["-c", "pass"]) for _ in range(3))
    assert min(spent(["-m", "bench", *words]) for _ in range(7)) - bare < 0.2
