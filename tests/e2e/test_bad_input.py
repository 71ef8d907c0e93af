"""What `bench run` says and does when its words, the data, the numbers or a method are wrong."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from messages import three_parts
from msgspec import structs

Bench = Callable[..., Any]


# before anything is opened: exit 2


@pytest.mark.parametrize(
    ("words", "what", "known", "todo"),
    [
        ("--method lorra --task glue/cola", "unknown method 'lorra'", "deeplora", "Did you mean 'lora'?"),
        ("--method lora --task glu", "unknown task 'glu'", "glue", "Did you mean 'glue'?"),
        ("--method LoRA --task glue/cola", "unknown method 'LoRA'", "lora", "Did you mean 'lora'?"),
        ("--method lora --task GLUE", "unknown task 'GLUE'", "glue", "Did you mean 'glue'?"),
        ("--method lora --task sst-2", "unknown task 'sst-2'", "glue", "Did you mean 'glue/sst2'?"),
        ("--method lora --task glue/SST-2", "unknown task 'glue/SST-2'", "sst2", "Did you mean 'glue/sst2'?"),
        ("--method lora --task glue/colla", "unknown task 'glue/colla'", "mnli", "Did you mean 'glue/cola'?"),
        ("--method lora --task glue/cola --set method.rnk=2", "unknown option 'method.rnk'", "method.rank", "rank"),
        ("--method lora --task glue/cola --set optm.eps=2", "unknown namespace 'optm'", "optim", "optim"),
        ("--method lora --task glue/cola --set method.rank=two", "method.rank", "int", "of that type"),
        ("--method lora --task glue/cola --set head.pooling=max", "head.pooling", "cls", "mean"),
        ("--method lora --task glue/cola --lr fast", "'fast' is not a positive number", "0.001", "finite"),
        ("--method lora --task glue/cola --train-samples 51", "glue/cola has 50", "without replacement", "fewer"),
    ],
)
def test_wrong_words(bench: Bench, fitted: list[Any], words: str, what: str, known: str, todo: str) -> None:
    outcome = bench(*words.split())
    assert outcome.code == 2
    said = three_parts(outcome)
    assert what in said[0]
    assert known in said[1]
    assert todo in said[1] + said[2]
    assert not outcome.folder.exists() and not fitted


def test_unknown_backbone(bench: Bench) -> None:
    outcome = bench("--method", "lora", "--task", "glue/cola", backbone="minilmm")
    assert outcome.code == 2
    assert "Did you mean 'minilm'?" in three_parts(outcome)[2]


# data and backbones: exit 3 where nothing can run, all of it found before training


@pytest.mark.parametrize("name", ["/not/there", "./not-there", "someone/not-there"])
def test_a_backbone_that_is_not_there(bench: Bench, name: str) -> None:
    outcome = bench("--method", "lora", "--task", "glue/cola", backbone=name)
    assert outcome.code == 3
    assert name in three_parts(outcome)[0]


@pytest.mark.parametrize(("package", "todo"), [("lowrank-bench", "pip install -e "), ("timm", "pip install timm")])
def test_a_package_is_not_installed(
    bench: Bench, fitted: list[Any], monkeypatch: pytest.MonkeyPatch, package: str, todo: str
) -> None:
    there = metadata.version

    def version(name: str) -> str:
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return there(name)

    monkeypatch.setattr(metadata, "version", version)
    outcome = bench("--method", "lora", "--task", "glue/cola")
    assert outcome.code == 3
    said = three_parts(outcome)
    assert f"{package} is not installed" in said[0] and todo in said[2]
    assert not fitted


def test_one_backbone_of_two_is_not_there(bench: Bench, tiny_bert: Path) -> None:
    outcome = bench("--method", "linear", "--task", "glue/cola", backbone=f"{tiny_bert},/not/there")
    assert outcome.code == 1
    assert outcome.only().state == "done"
    assert "/not/there" in outcome.err


def test_a_data_directory_that_is_not_there(bench: Bench, tmp_path: Path) -> None:
    outcome = bench("--method", "lora", "--task", "glue", data=tmp_path / "nowhere")
    assert outcome.code == 3
    assert f"data directory {tmp_path / 'nowhere'} does not exist" in outcome.err
    said = three_parts(outcome)
    assert "--data-dir" in said[2]
    assert outcome.err.count("nowhere does not exist") == 1
    assert "glue/cola" in said[1] and "glue/wnli" in said[1]


BROKEN: list[tuple[str, str, Callable[[str], str], str, str]] = [
    ("CoLA", "train", lambda text: text.replace("\t*\t", "\t", 1), "line 1", "wrong number of fields (3, not 4)"),
    ("RTE", "dev", lambda text: text.replace("not_entailment", "maybe", 1), "line 2", "maybe"),
    ("SST-2", "train", lambda text: text.replace("label", "lable", 1), "line 1", "there is no column 'label'"),
    ("STS-B", "train", lambda text: text.rsplit("\t", 1)[0] + "\thigh\n", "line 41", "high"),
    ("MRPC", "dev", lambda text: "", "dev.tsv", "empty"),
]


@pytest.mark.parametrize(("folder", "split", "broken", "line", "problem"), BROKEN, ids=[case[0] for case in BROKEN])
def test_a_malformed_file_is_named_with_its_line_before_any_training(
    bench: Bench, own_glue: Path, folder: str, split: str, broken: Callable[[str], str], line: str, problem: str
) -> None:
    file = own_glue / folder / f"{split}.tsv"
    file.write_text(broken(file.read_text()))
    outcome = bench("--method", "lora", "--task", f"glue/{folder.lower().replace('-', '')}", data=own_glue)
    assert outcome.code == 3
    what, known, todo = three_parts(outcome)
    assert problem in what
    assert str(file) in known and line in known
    assert "--data-dir" in todo
    assert not outcome.folder.exists()


def test_a_file_that_is_not_there_and_one_that_is_no_text(bench: Bench, own_glue: Path) -> None:
    (own_glue / "RTE" / "dev.tsv").unlink()
    with (own_glue / "CoLA" / "train.tsv").open("ab") as file:
        file.write(b"src\t1\t\t\xff\xfe\n")
    outcome = bench("--method", "lora", "--task", "glue/rte,glue/cola", data=own_glue)
    assert outcome.code == 3
    _, known, _ = three_parts(outcome)
    assert "split 'dev' is missing" in known
    assert f"{own_glue / 'CoLA' / 'train.tsv'}, line 51" in known


def test_one_bad_task_among_good_ones(bench: Bench, own_glue: Path) -> None:
    file = own_glue / "CoLA" / "dev.tsv"
    file.write_text(file.read_text() + "src\t7\t\tann sees bob\n")
    words = ("--method", "linear", "--task", "glue/cola,glue/rte")
    outcome = bench(*words, data=own_glue)
    assert outcome.code == 1
    assert outcome.states() == {("linear", "glue/rte"): "done"}
    assert "cannot run glue/cola" in outcome.err
    assert f"{file}, line 34" in outcome.err
    assert outcome.out.count("| linear ") == 1, "the table is printed all the same"
    assert bench(*words, "--strict", data=own_glue, out=own_glue / "strict").code == 3


def test_a_directory_that_lacks_some_tasks(bench: Bench, fitted: list[Any], tmp_path: Path) -> None:
    strict = bench("--method", "linear", "--task", "glue", "--strict", out=tmp_path / "strict")
    assert (strict.code, fitted) == (3, [])
    assert not strict.folder.exists()
    outcome = bench("--method", "linear", "--task", "glue")
    assert outcome.code == 0
    assert {task for _, task in outcome.states()} == {f"glue/{t}" for t in ("cola", "sst2", "mrpc", "stsb", "rte")}
    for absent in ("glue/qqp", "glue/mnli", "glue/qnli", "glue/wnli"):
        assert absent in outcome.err and absent in strict.err
    alone = bench("--method", "linear", "--task", "glue/qqp")
    assert alone.code == 3
    assert "QQP" in three_parts(alone)[1]


def test_an_out_that_is_a_file(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    outcome = bench("--method", "linear", "--task", "glue/cola", out=tmp_path / "taken")
    assert outcome.code == 3
    assert "taken" in three_parts(outcome)[0]


# while it runs: a state of its own, exit 1, and the others go on


def test_a_loss_that_is_no_number(bench: Bench, fitted: list[Any]) -> None:
    words = ("--method", "full", "--task", "glue/cola,glue/stsb", "--lr", "1e30,1e-4")
    outcome = bench(*words)
    assert outcome.code == 1
    by_rate = {(made.lr, made.task.name): made for made in outcome.records}
    for task in ("glue/cola", "glue/stsb"):
        good, bad = by_rate[1e-4, task], by_rate[1e30, task]
        assert (good.state, bad.state) == ("done", "diverged")
        assert bad.metrics is None
        assert "--lr" in bad.error.todo
        assert all(bad.error.to_json().values())
    assert outcome.err.count("DIVERGED") == 2
    assert "2 done, 2 failed" in outcome.err and "--retry" in outcome.err
    assert "1e+30" not in outcome.out, "no score, no row"
    assert len(fitted) == 4
    assert bench(*words).code == 1
    assert len(fitted) == 4, "a rerun leaves failures alone"


def test_a_diverged_trial_is_not_chosen(bench: Bench) -> None:
    words = ("--method", "full", "--task", "glue/stsb", "--select", "lr")
    made = bench(*words, "--lr", "1e30,1e-4,1e-6")
    assert made.code == 0
    selection = made.only().selection
    assert [(t.state, t.value is None) for t in selection.trials] == [("done", False)] * 2 + [("diverged", True)]
    assert selection.chosen == 1e-4


def test_no_trial_ends(bench: Bench) -> None:
    outcome = bench("--method", "full", "--task", "glue/stsb", "--select", "lr", "--lr", "1e30,1e31")
    assert outcome.code == 1
    assert outcome.only().state == "failed"
    assert "no trial" in outcome.only().error.what


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("--method lora,linear --set method.target=nothing_like_it", "matches no linear layer"),
        ("--method lora,linear --set method.target=(", "not a regular expression"),
        ("--method deeplora,linear --set method.form=compressed --set method.rank=34", "a layer of shape 32×32"),
    ],
)
def test_an_option_that_does_not_fit_the_backbone(bench: Bench, words: str, what: str) -> None:
    outcome = bench(*words.split(), "--task", "glue/cola")
    assert outcome.code == 1
    states = outcome.states()
    assert states.pop(("linear", "glue/cola")) == "done"
    assert [*states.values()] == ["failed"]
    [bad] = [made for made in outcome.records if made.state == "failed"]
    assert what in bad.error.what + bad.error.known
    assert bad.error.what in outcome.err
    assert bad.error.known and bad.error.todo
    assert not (outcome.folder / bad.run_id / "error.log").exists(), "foreseen, so no traceback"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("--method deeplora,linear --set method.form=compressed --set method.rank=3", "even rank"),
        ("--method deeplora,linear --set method.depth=1", "method.depth=1"),
        ("--method lora --set method.rank=0", "method.rank=0"),
    ],
)
def test_an_option_that_fits_no_backbone_is_refused_before_any_training(
    bench: Bench, fitted: list[Any], words: str, what: str
) -> None:
    outcome = bench(*words.split(), "--task", "glue/cola")
    assert (outcome.code, fitted) == (2, [])
    assert what in three_parts(outcome)[0]


@pytest.mark.parametrize(
    ("words", "parts"), [("--set runtime.micro_batch=3", "3 per micro"), ("--devices 3", "3 devices")]
)
def test_a_batch_that_cannot_be_cut(bench: Bench, fitted: list[Any], words: str, parts: str) -> None:
    outcome = bench("--method", "linear", "--task", "glue/cola", *words.split())
    assert outcome.code == 2
    said = three_parts(outcome)
    assert "--batch-size 8 cannot be divided into equal parts" in said[0]
    assert parts in said[1]
    assert not outcome.folder.exists() and not fitted


def test_samples_that_one_task_lacks_leave_the_others(bench: Bench) -> None:
    outcome = bench("--method", "linear", "--task", "glue/cola,glue/stsb", "--train-samples", "50")
    assert outcome.code == 1
    assert outcome.states() == {("linear", "glue/cola"): "done"}
    assert outcome.only().source.train_examples == 50
    assert "glue/stsb has 40 training examples" in outcome.err


def test_a_defect_of_a_method_and_retry(
    bench: Bench, fitted: list[Any], files: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import methods.lora.method

    words = ("--method", "lora,linear", "--task", "glue/cola")

    def adapt(self: Any, batch: Any) -> None:
        raise RuntimeError("boom\nand more")

    with monkeypatch.context() as patch:
        patch.setattr(methods.lora.method.LoRA, "adapt", adapt)
        outcome = bench(*words)
        loud = bench(*words, "-v", out=tmp_path / "loud")
    assert outcome.code == 1
    by_method = {made.spec.method: made for made in outcome.records}
    bad, good = by_method["lora"], by_method["linear"]
    assert (bad.state, good.state) == ("failed", "done")
    assert bad.error.what == "RuntimeError: boom"
    log = outcome.folder / bad.run_id / "error.log"
    assert "Traceback" in log.read_text() and "in adapt" in log.read_text()
    assert "Traceback" in loud.err and "in adapt" in loud.err

    fitted.clear()
    before = files(outcome.folder / good.run_id)
    again = bench(*words, "--retry")
    assert again.code == 0
    assert fitted == [("lora", "glue/cola")], "--retry runs what failed, and nothing else"
    assert files(outcome.folder / good.run_id) == before
    assert not log.exists(), "the log of an attempt that was made good"


def _cuda_memory() -> BaseException:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    "error",
    [
        _cuda_memory,
        MemoryError,
        lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    ],
    ids=["gpu", "python", "cpu"],
)
def test_out_of_memory_is_a_state_of_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]
) -> None:
    import methods.full.method

    def adapt(self: Any, batch: Any) -> None:
        raise error()

    monkeypatch.setattr(methods.full.method.Full, "adapt", adapt)
    outcome = bench("--method", "full,linear", "--task", "glue/cola")
    assert outcome.code == 1
    assert outcome.states() == {("full", "glue/cola"): "oom", ("linear", "glue/cola"): "done"}
    assert "micro_batch" in outcome.err


@pytest.mark.parametrize("end", [SystemExit, lambda: SystemExit("stop")], ids=["code", "text"])
def test_a_method_that_wants_to_leave_the_program_is_a_failed_cell(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, end: Callable[[], BaseException]
) -> None:
    import methods.full.method

    def adapt(self: Any, batch: Any) -> None:
        raise end()

    monkeypatch.setattr(methods.full.method.Full, "adapt", adapt)
    outcome = bench("--method", "full,linear", "--task", "glue/cola")
    assert outcome.code == 1
    assert outcome.states() == {("full", "glue/cola"): "failed", ("linear", "glue/cola"): "done"}


def test_a_result_that_no_record_can_hold_is_a_failed_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.training.trainer as fitting

    real = fitting.fit

    def fit(spec: Any, *rest: Any, **options: Any) -> Any:
        result = real(spec, *rest, **options)
        broken = tuple(structs.replace(row, norm=float("nan")) for row in result.ranks)
        return structs.replace(result, ranks=broken) if spec.method == "lora" else result

    monkeypatch.setattr(fitting, "fit", fit)
    outcome = bench("--method", "lora,linear", "--task", "glue/cola")
    assert outcome.code == 1
    assert outcome.states() == {("lora", "glue/cola"): "failed", ("linear", "glue/cola"): "done"}
