"""Plan files: a request written and read again is the same, wrong files are the errors of wrong flags, flags win."""

from __future__ import annotations

import random
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cli import run as run_verb
from bench.core.errors import BenchError, EnvironmentProblem, UsageError
from bench.harness.plan_file import HEADER, KEYS, read, values, write
from bench.harness.planner import make_plan
from bench.harness.request import Request, make_request

WORDS = [
    "",
    "no",
    "on",
    "null",
    "~",
    "none",
    "1e-3",
    "1e5",
    "012",
    "0x1f",
    "1:30",
    "2001-01-01",
    "=",
    "<<",
    "- a",
    "a: b",
]
WORDS += [
    "a #b",
    "a,b",
    "[a]",
    "{a}",
    "&a",
    "*a",
    "!a",
    "|",
    ">",
    "%a",
    "@a",
    "`a`",
    "'",
    '"',
    "é\n\t",
    " a ",
    "a\\,b",
    "\x85",
    "\r\u2028\udc80",
]
"""What YAML reads as something else, or marks something with."""


def file(folder: Path, text: str) -> Path:
    (folder / "grid.yaml").write_text(text, encoding="utf-8")
    return folder / "grid.yaml"


def flags(words: str) -> Request:
    return run_verb.request_of(run_verb.parser().parse_args(shlex.split(words)))


def any_request(draw: random.Random, folder: Path) -> Request:
    """A valid request whose every field is drawn."""

    def some(*items: Any) -> list[Any]:
        return draw.sample(items, draw.randint(1, len(items)))

    def maybe(**given: Any) -> dict[str, Any]:
        return {name: value for name, value in given.items() if draw.random() < 0.5}

    settings = maybe(
        **{
            "method.rank": draw.choice([4, "4,8", [4, 8], (1,)]),
            "method.target": draw.choice([*WORDS[1:], some(*WORDS)]),
            "method.dora": draw.choice([True, "no", "yes,no"]),
            "method.start": draw.choice([None, "none", *WORDS[1:]]),
            "optim.eps": draw.choice([1e-8, 3e-05, "1e-3", [0, 0.1]]),
            "spectra.layers": draw.choice(["*.0.*,*a", ["*", "a,b"]]),
            "task.separator": draw.choice(["|"]),
            "task.text": draw.choice([*WORDS[1:], some(*WORDS)]),
        }
    )
    settings = {name: value for name, value in settings.items() if not (isinstance(value, str) and ",," in value)}
    select = draw.choice([(), ("lr",), ("lr", "method.rank"), ("optim.eps",)])
    settings |= {name: draw.choice([[2, 4], "2,4"]) for name in select if name != "lr"}
    data = draw.choice(["auto", "dir", "embedded", "hub"])
    named: Any = {"glue": folder / "a b", "table": Path("../x")} if draw.random() < 0.5 else str(folder)
    return make_request(
        methods=["lora", *some("full", "deeplora")],
        tasks=[*some("glue", "glue/rte", "digits"), f"table:{draw.choice(WORDS)}.csv"],
        set=settings,
        data=data,
        data_dir=named if data == "dir" or (data == "auto" and draw.random() < 0.5) else (),
        bench_data=draw.choice(["none", "data", str(folder / "=,: x")]),
        select=select,
        **maybe(
            backbones=some("minilm", "vit", "google-bert/bert-base-cased", *WORDS[1:]),
            seeds=some(0, 1, 2**32 - 1),
            lr=sorted(draw.uniform(1e-6, 1) for _ in range(draw.randint(2, 4))),
            train_samples=draw.randint(1, 99),
            batch_size=draw.randint(1, 99),
            evaluate=draw.choice(["epoch", 7]),
            out=draw.choice(["elsewhere", folder / "o: #", "."]),
            precision="bf16-mixed",
            accelerator="cpu",
            devices=draw.randint(1, 4),
            track=draw.choice(["csv", "off"]),
            strict=True,
            retry=True,
            **draw.choice([{"max_steps": draw.randint(1, 999)}, {"epochs": draw.uniform(0.01, 9)}]),
            **({"select_on": "glue/sst2"} if select else {}),
            **draw.choice([{"widen": draw.randint(0, 5)} if "lr" in select else {}, {"trials": 9} if select else {}]),
        ),
    )


def test_every_field_of_a_request_has_its_key() -> None:
    keys = {key.argument for key in KEYS.values()}
    assert keys - {"set", "lr", "bench_data", "data_dir"} == {f.name for f in fields(Request)} - {"overrides", "lrs"}
    assert set(values(Request(methods=("lora",), tasks=("glue",), retry=True))) <= set(KEYS)


def test_a_request_that_is_written_and_read_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, made = random.Random(0), 0
    for _ in range(200):
        try:
            monkeypatch.setenv("BENCH_DATA", "written here")
            request = any_request(draw, tmp_path)
            monkeypatch.setenv("BENCH_DATA", "and read elsewhere")
            again = read(file(tmp_path, write(request)))
        except UsageError as error:  # a list of texts of which two are one value
            assert "given twice" in error.what or "empty element" in error.what, error
            continue
        made += 1
        assert again == request
        plain = yaml.safe_load(write(request))
        assert [*plain] == [*values(request)], "any reader of YAML finds the same keys"
    assert made > 120


@pytest.mark.parametrize(
    "words",
    [
        "--method lora,full --task digits --set method.rank=2,4 --seeds 0,1",
        "--method lora --task digits --select lr --lr 1e-3,3e-3 --widen 0",
        "--method full --task synthetic/completion --select lr --select-on synthetic/regression "
        "--set task.spectrum=3,1",
        "--method linear --task table:a.csv --set data.on_bad=skip --epochs 0.5",
    ],
)
def test_its_runs_are_those_of_the_flags(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(40)))
    plan = make_plan(flags(words))
    again = make_plan(read(file(tmp_path, write(plan.request))))
    assert [run.run_id for run in again.runs] == [run.run_id for run in plan.runs]
    assert [trial.run_id for trial in again.trials] == [trial.run_id for trial in plan.trials]


def test_a_local_backbone_and_bench_data_are_the_same_in_another_shell(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "glue" / "RTE").mkdir(parents=True)
    for split in ("train", "dev"):
        rows = [f"{i}\tone {i}\ttwo {i}\t{'entailment' if i % 2 else 'not_entailment'}\n" for i in range(20)]
        (tmp_path / "glue" / "RTE" / f"{split}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(rows))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    plan = make_plan(flags(f"--method lora --task glue/rte --backbone {shlex.quote(str(tiny_bert))}"))
    assert plan.runs[0].dataset.source == "directory"
    written = file(tmp_path, write(plan.request))
    monkeypatch.delenv("BENCH_DATA")
    assert make_plan(read(written)).runs[0].run_id == plan.runs[0].run_id
    monkeypatch.chdir(tmp_path)
    elsewhere = make_plan(
        flags(f"--method lora --task glue/rte --backbone {shlex.quote(str(tiny_bert))} --data embedded")
    )
    without = file(tmp_path, write(elsewhere.request))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    assert make_plan(read(without)).runs[0].run_id == elsewhere.runs[0].run_id


def test_a_file_by_hand_reads_as_people_mean_it(tmp_path: Path) -> None:
    text = """
# a comment
method: lora, full
task: [digits, 'table:no']
seeds: 3
lr: [1e-3, 3E-4, .01]
strict: yes
epochs: 2
evaluate: 10
data_dir: table=~/x
set:
  method.rank: [4, 08]     # another
  method.target: no
  head.trainable: no
  task.text: null
  task.label: 1e5
"""
    request = read(file(tmp_path, text))
    assert request.methods == ("lora", "full") and request.tasks == ("digits", "table:no")
    assert request.seeds == (3,) and request.lrs == (1e-3, 3e-4, 0.01)
    assert request.strict and request.epochs == 2.0 and request.evaluate == 10
    assert request.data.dirs == (("table", Path.home() / "x"),)
    assert request.overrides.by_name() == {
        "method.rank": ("4", "08"),
        "method.target": "no",
        "head.trainable": "no",
        "task.text": "none",
        "task.label": "1e5",
    }
    assert file(tmp_path, text + "\n# more\n") and read(tmp_path / "grid.yaml") == request


BASE = "method: lora\ntask: digits\n"
WRONG = [
    ("methods: lora\ntask: digits", "unknown key 'methods'", "Did you mean 'method'?"),
    (f"{BASE}max-steps: 3", "unknown key 'max-steps'", "Did you mean 'max_steps'?"),
    (f"{BASE}zzz: 3", "unknown key 'zzz'", "bench plan"),
    ("task: digits", "--method is missing", "lora"),
    ("method: lorra\ntask: digits", "unknown method 'lorra'", "Did you mean 'lora'?"),
    (f"{BASE}seeds: 1.5", "seeds: '1.5' is not a whole number from 0", "Give"),
    (f"{BASE}seeds: [1, 1]", "--seeds: 1 is given twice", "Keep one"),
    (f"{BASE}seeds: [[1], 2]", "seeds: it is neither a value nor a list of values", "Write"),
    (f"{BASE}seeds: []", "seeds: it is neither a value nor a list of values", "Write"),
    (f"{BASE}max_steps: [1, 2]", "max_steps: it takes one value", "KEY: VALUE"),
    (f"{BASE}max_steps: 0", "max_steps: '0' is not a whole number of at least 1", "Give"),
    (f"{BASE}max_steps: 3\nepochs: 2", "--max-steps is not allowed with --epochs", "Leave one"),
    (f"{BASE}lr: fast", "lr: 'fast' is not a positive number", "Give"),
    (f"{BASE}select: rank", "--select rank: neither lr nor an option", "Did you mean 'method.rank'?"),
    (f"{BASE}select_on: digits", "--select-on without --select", "Add"),
    (f"{BASE}strict: maybe", "strict: 'maybe' is neither true nor false", "Write"),
    (f"{BASE}precision: fp8", "precision: unknown value 'fp8'", "Choose"),
    (f"{BASE}set: method.rank=4", "set: it is no mapping", "method.rank"),
    (f"{BASE}set: {{method: {{rank: 4}}}}", "set: it is neither a value nor a list", "Write"),
    (f"{BASE}set: {{rank: 4}}", "--set rank=4: not of the form namespace.key=value", "method.rank=8"),
    (f"{BASE}set: {{method.rnk: 4}}", "unknown option 'method.rnk'", "Did you mean 'method.rank'?"),
    (f"{BASE}set: {{method.rank: [4, x]}}", "--set method.rank=x: expected a whole number", "type"),
    (f"{BASE}set: {{method.rank: [4, 4]}}", "--set method.rank: 4 is given twice", "Keep one"),
    (f"{BASE}task: digits", "'task' is given twice line 3, column 1", "Fix"),
    (f"{BASE}set: {{method.rank: 4, method.rank: 8}}", "'method.rank' is given twice", "Fix"),
    (f"{BASE}seeds:", "a key has no value line 3", "Fix"),
    ("method: [lora", "expected ',' or ']'", "Fix"),
    ("&a [*a]", "recursive", "Fix"),
    ("[" * 5000, "is not a plan file", "Fix"),
    ("", "it has no keys", "bench plan"),
    ("- lora", "it has no keys", "bench plan"),
    (f"{BASE}set: !!python/object/apply:os.system ['touch here']", "set: it is no mapping", "method.rank"),
    (f"{BASE}<<: {{seeds: 1}}", "unknown key '<<'", "bench plan"),
]


@pytest.mark.parametrize(("text", "said", "todo"), WRONG, ids=[text[-30:] for text, *_ in WRONG])
def test_a_wrong_file_is_the_error_of_wrong_flags(
    text: str, said: str, todo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        read(file(tmp_path, text))
    assert caught.value.what.startswith(str(tmp_path / "grid.yaml"))
    assert said in f"{caught.value.what} {caught.value.known}"
    assert todo in caught.value.todo and caught.value.known
    assert [*tmp_path.iterdir()] == [tmp_path / "grid.yaml"]


def test_a_file_that_cannot_be_read_is_a_problem_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text("#" * (2**20 + 1))
    for name in ("gone.yaml", "large.yaml", ".", "/dev/null"):
        with pytest.raises(EnvironmentProblem) as caught:
            read(tmp_path / name)
        assert caught.value.known and caught.value.todo
    (tmp_path / "grid.yaml").write_bytes(b"method: \xff")
    with pytest.raises(UsageError, match="is not a plan file"):
        read(tmp_path / "grid.yaml")


def test_flags_take_the_place_of_the_file(tmp_path: Path) -> None:
    text = f"{BASE}seeds: [0, 1]\nepochs: 2\nout: there\nset: {{method.rank: [4, 8], optim.clip: 0}}\n"
    path = file(tmp_path, text)
    assert read(path).seeds == (0, 1)
    words = (
        f"--plan {path} --seeds 5 --max-steps 7 --out here --set method.rank=2 --method full,lora --widen 0 --select lr"
    )
    found = flags(words)
    assert (found.seeds, found.max_steps, found.epochs, found.out) == ((5,), 7, None, Path("here"))
    assert (found.methods, found.tasks, found.select, found.widen) == (("full", "lora"), ("digits",), ("lr",), 0)
    assert found.overrides.by_name() == {"method.rank": "2", "optim.clip": "0"}
    assert read(path, set={"method.rank": 2}).overrides == flags(f"--plan {path} --set method.rank=2").overrides
    with pytest.raises(UsageError, match=r"grid\.yaml and what is given beside it: --seeds: 1 is given twice"):
        flags(f"--plan {path} --seeds 1,1")


def test_a_file_completed_by_flags(tmp_path: Path) -> None:
    path = file(tmp_path, "task: digits\nseeds: 3\n")
    with pytest.raises(BenchError, match="--method is missing"):
        read(path)
    assert flags(f"--plan {path} --method lora").seeds == (3,)


def test_the_comment_says_how_to_run_it() -> None:
    written = write(make_request(methods="lora", tasks="digits"))
    assert written.startswith(HEADER) and "bench run --plan" in HEADER
    assert all(line.startswith("#") for line in HEADER.splitlines())


def test_a_value_that_stands_twice_is_written_twice() -> None:
    written = write(make_request(methods="lora", tasks="digits", seeds=[7, 8], batch_size=7, bench_data="none"))
    assert written == HEADER + ("method: [lora]\ntask: [digits]\nseeds: [7, 8]\nbench_data: none\nbatch_size: 7\n")
