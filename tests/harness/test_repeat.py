"""The command in a record repeats its run alone, to the same id: it is parsed and planned again here."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.cli import run as run_verb
from bench.harness.planner import Plan, make_plan
from bench.harness.repeat import repeat_command


def plan(words: list[str]) -> Plan:
    return make_plan(run_verb.request_of(run_verb.parser().parse_args(words)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user stands: a table, images and texts, all in folders whose names need quotes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    own = tmp_path / "my data"
    own.mkdir()
    rows = [f"text {i} is {'good' if i % 2 else 'bad'},{'yes' if i % 2 else 'no'}" for i in range(40)]
    (own / "train.csv").write_text("review,label\n" + "\n".join(rows))
    (own / "texts").mkdir()
    (own / "texts" / "a.txt").write_text("\n\n".join(f"A paragraph, number {i}." for i in range(40)))
    for number in range(24):
        place = own / "birds" / ("crow" if number % 2 else "wren")
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path


CASES = {
    "embedded": "--method lora --task glue/rte --data embedded",
    "a table": "--method lora --task 'table:my data/train.csv' --set task.text=review --set task.validation=0.2",
    "a table that is guessed": "--method linear --task 'table:my data/train.csv' --set data.on_bad=skip",
    "images": "--method full --task 'images:my data/birds' --set task.size=8 --set task.augment=flip",
    "texts": "--method mlm --task 'corpus:my data/texts' --set task.unit=paragraph --set task.max_length=32",
    "spaces in a value": "--method lora --task glue/rte --data embedded --set 'method.target=query|no such layer'",
    "budget": "--method full --task digits --epochs 0.5 --batch-size 8 --train-samples 100 --lr 3e-4",
    "a course": "--method lora,mlm --task glue/rte --data embedded --evaluate 25",
    "a course by epochs": "--method full --task digits --epochs 1.5 --evaluate epoch --select lr",
    "how": "--method full --task digits --precision 64-true --accelerator cpu --track csv --out 'other runs'",
    "selected": "--method lora,full --task glue/rte --data embedded --select lr",
    "selected elsewhere": "--method lora --task glue/rte --data embedded --select lr --select-on glue/sst2 "
    "--lr 1e-3,3e-3",
    "selected on a table": "--method linear --task glue/rte --data embedded --select lr "
    "--select-on 'table:my data/train.csv' --set task.validation=0.3",
    "an option by trials": "--method lora,full --task digits --backbone mlp --select method.rank,lr --trials 9 "
    "--lr 1e-3,2e-3,3e-3 --set method.rank=2,4 --set head.dropout=0,0.5 --seeds 1",
    "options of a list": "--method lora --task glue/rte --data embedded --select method.target,head.loss "
    "--lr 1e-3,3e-3 --set 'method.target=qv,a\\,b' --set head.loss=auto,squared --select-on glue/cola",
    "a grid": "--method lora,full --task digits,synthetic/completion --seeds 0,3 --lr 1e-3,1e-2 --set method.rank=4 "
    "--set task.rank=2",
    "allocation": "--method lora,full --task glue/rte --data embedded --set allocation.policy=depth "
    "--set allocation.slope=0.25",
    "a built backbone": "--method full --task digits --backbone mlp --set backbone.width=16 --set penalty.nuclear=1e-3",
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
@pytest.mark.usefixtures("folder")
def test_planned_again_it_is_the_same_run(words: str) -> None:
    first = plan(shlex.split(words))
    assert first.runs
    for run in first.runs:
        command = shlex.split(shlex.join(repeat_command(run, first.request)))
        assert command[:2] == ["bench", "run"]
        [again] = plan(command[2:]).runs
        assert again.run_id == run.run_id
        assert again.spec == run.spec
        assert [trial.run_id for trial in again.trials] == [trial.run_id for trial in run.trials]


def test_a_local_backbone_is_named_by_its_folder(folder: Path, tiny_bert: Path) -> None:
    first = plan(["--method", "lora", "--task", "glue/rte", "--data", "embedded", "--backbone", str(tiny_bert)])
    command = repeat_command(first.runs[0], first.request)
    assert str(tiny_bert) in command
    assert plan(command[2:]).runs[0].run_id == first.runs[0].run_id


def write_rte(data: Path) -> None:
    (data / "glue" / "RTE").mkdir(parents=True)
    for split in ("train", "dev"):
        rows = [f"{i}\tone {i}\ttwo {i}\t{'entailment' if i % 2 else 'not_entailment'}" for i in range(20)]
        text = "index\tsentence1\tsentence2\tlabel\n" + "\n".join(rows) + "\n"
        (data / "glue" / "RTE" / f"{split}.tsv").write_text(text)


def test_data_of_a_folder_do_not_become_embedded_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rte(folder / "data")
    monkeypatch.setenv("BENCH_DATA", "data")
    first = plan(["--method", "lora", "--task", "glue/rte"])
    monkeypatch.delenv("BENCH_DATA")
    for words in ([], ["--data-dir", "glue=data/glue"]):
        grid = first if not words else plan(["--method", "lora", "--task", "glue/rte", *words])
        [again] = plan(repeat_command(grid.runs[0], grid.request)[2:]).runs
        assert (again.dataset.source, again.run_id) == ("directory", first.runs[0].run_id)


def test_the_task_that_chooses_reads_the_same_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table needs no folder; the command named none, and the rate was chosen on embedded data."""
    write_rte(folder / "data")
    monkeypatch.setenv("BENCH_DATA", "data")
    words = "--method linear --task 'table:my data/train.csv' --select lr --select-on glue/rte"
    first = plan(shlex.split(words))
    monkeypatch.delenv("BENCH_DATA")
    [again] = plan(repeat_command(first.runs[0], first.request)[2:]).runs
    assert {trial.dataset.source for trial in again.trials} == {"directory"}
    assert [trial.run_id for trial in again.trials] == [trial.run_id for trial in first.runs[0].trials]


@pytest.mark.usefixtures("folder")
def test_a_trial_has_no_command_of_its_own() -> None:
    made = plan(shlex.split(CASES["selected"]))
    assert {tuple(repeat_command(trial, made.request)) for trial in made.trials} == {()}
