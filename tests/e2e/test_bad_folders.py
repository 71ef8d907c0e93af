"""Records that cannot be read, disks that are full, clocks that go back, and secrets that must stay in their place."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from messages import three_parts

from bench.core.errors import BenchError, MachineProblem

Bench = Callable[..., Any]


KEYS = {"HF_TOKEN": "geheim one", "OTHER_SECRET": "geheim two"}
TOKEN = "hf_" + "geheim" * 6


def test_secrets_leave_nowhere(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `--set`, in an error of a library, and in its traceback."""
    import methods.full.method

    def adapt(self: Any, batch: Any) -> None:
        raise RuntimeError(f"401 for {KEYS['HF_TOKEN']} and {KEYS['OTHER_SECRET']} at https://ann:geheim3@host/x")

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(methods.full.method.Full, "adapt", adapt)
    outcome = bench("--method", "full,lora", "--task", "glue/cola", "--set", f"method.target={TOKEN}", "--json")
    assert (outcome.code, len(outcome.records)) == (1, 2)
    assert {made.spec.options.method.get("target") for made in outcome.records} == {None, "hf_***"}
    written = "".join(path.read_text(errors="replace") for path in outcome.folder.glob("*/*.*"))
    assert "401 for *** and *** at https://ann:***@host/x" in outcome.err and "Traceback" in written
    for text in (outcome.out, outcome.err, written):
        assert "***" in text and "geheim" not in text
    outcome = bench("--method", "lora", "--task", "glue/cola", "--set", f"method.token={TOKEN}", "-v")
    assert outcome.code == 2
    assert "Traceback" in outcome.err and "geheim" not in outcome.err + outcome.out


def test_a_worker_s_log_has_no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench.harness import worker

    program = f"import sys; print('step 1 0.5\\nwarning \"cut\"', flush=True); sys.exit('no access with {TOKEN}')"
    monkeypatch.setattr(worker, "command", lambda path: [sys.executable, "-c", program])
    steps: list[int] = []
    warnings: list[str] = []
    job: Any = {"token": TOKEN}
    with pytest.raises(BenchError) as error:
        worker.run(job, tmp_path, lambda step, loss: steps.append(step), warnings.append)
    assert "no access with hf_***" in error.value.known
    assert (tmp_path / worker.LOG).read_text() == "no access with hf_***\n"
    assert (steps, warnings) == ([1], ["cut"]) and not (tmp_path / worker.JOB).exists()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "half a file": lambda content: content[: len(content) // 2],
    "one bad byte": lambda content: content.replace(b"linear", b"line\xffr", 1),
    "an unknown field": lambda content: content.replace(b"{", b'{"mood": "good",', 1),
    "of another run": lambda content: content.replace(b'"run_id": "', b'"run_id": "0000', 1),
}


@pytest.mark.parametrize("damage", [*DAMAGE])
def test_a_broken_record_is_set_aside_with_its_folder(bench: Bench, fitted: list[Any], files: Any, damage: str) -> None:
    words = ("--method", "linear", "--task", "glue/cola,glue/rte")
    first = bench(*words)
    folder = first.folder / first.records[0].run_id
    (folder / "record.json").write_bytes(DAMAGE[damage]((folder / "record.json").read_bytes()))
    broken = files(folder)
    again = bench(*words)
    assert again.code == 0  # the table may differ: it has the training time
    assert {r.run_id: r.metrics for r in again.records} == {r.run_id: r.metrics for r in first.records}
    assert len(fitted) == 3
    aside = first.folder / "broken" / f"{folder.name}-1"
    assert files(aside) == broken, "nothing of it is lost"
    [line] = [line for line in again.err.splitlines() if str(aside) in line]
    assert str(folder / "record.json") in line and "trained again" in line

    (folder / "record.json").write_text("{")
    assert bench(*words).code == 0
    assert (first.folder / "broken" / f"{folder.name}-2" / "record.json").read_text() == "{"
    assert files(aside) == broken


def test_a_broken_record_of_a_trial_beyond_the_candidates_is_set_aside_too(bench: Bench) -> None:
    words = ("--method", "linear", "--task", "glue/cola", "--select", "lr", "--lr", "1e-30,1e-29", "--widen", "1")
    first = bench(*words)
    trial = first.only().selection.trials[0]
    assert trial.lr < 1e-30
    folder = first.folder / "selection" / trial.run_id
    (folder / "record.json").write_text("{")
    again = bench(*words)
    assert (again.code, again.only().state) == (0, "done")
    aside = first.folder / "broken" / f"{trial.run_id}-1"
    assert (aside / "record.json").read_text() == "{"
    assert [line for line in again.err.splitlines() if str(aside) in line and "trained again" in line]


def test_a_huge_file_is_no_record_and_is_not_read(bench: Bench) -> None:
    words = ("--method", "linear", "--task", "glue/cola")
    first = bench(*words)
    path = first.folder / first.only().run_id / "record.json"
    with path.open("wb") as stream:
        stream.truncate(2**40)  # sparse: it takes no room on the disk, and would fill the memory
    again = bench(*words)
    assert (again.code, again.only().state) == (0, "done")
    assert "may have 16,777,216" in again.err


def test_a_record_of_another_schema_is_refused_before_training(bench: Bench, fitted: list[Any], files: Any) -> None:
    """An older version of this program trained over the folder of a newer one."""
    words = ("--method", "linear", "--task", "glue/cola,glue/rte")
    first = bench(*words)
    other, path = (first.folder / made.run_id / "record.json" for made in first.records)
    newer = {**json.loads(path.read_text()), "schema": 3, "mood": "good"}
    path.write_text(json.dumps(newer))
    other.unlink()  # there is a run to train
    before = files(first.folder)
    outcome = bench(*words)
    assert outcome.code == 3
    what, known, todo = three_parts(outcome)
    assert what == f"error: {path}: schema version 3" and "reads version 2" in known and "another folder" in todo
    assert files(first.folder) == before
    assert len(fitted) == 2


@pytest.mark.parametrize(("method", "gone"), [("linear", True), ("full", False)])
def test_a_lost_adapter_is_said(bench: Bench, fitted: list[Any], method: str, gone: bool) -> None:
    words = ("--method", method, "--task", "glue/cola")
    first = bench(*words)
    folder = first.folder / first.only().run_id
    assert "gone" not in bench(*words).err
    (folder / "adapter.safetensors").unlink(missing_ok=True)
    again = bench(*words)
    said = f"done before, but adapter.safetensors is gone: remove {folder} to train it again"
    assert (said in again.err) is gone
    assert "done before" in again.err and len(fitted) == 1


# the machine: exit 3, and what is finished stays


def test_a_full_disk_names_the_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    outcome = bench("--method", "lora", "--task", "glue/cola")
    assert outcome.code == 3
    what, known, todo = three_parts(outcome)
    assert what.endswith("record.json: No space left on device")
    assert "finished runs" in known and "same command again" in todo


@pytest.fixture
def files_up_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """`files_up_to(n)` lets the system refuse files of more than n bytes, as a full disk does."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [4_200, 20_000])
def test_a_disk_that_fills_up_stops_the_command_and_it_goes_on(
    bench: Bench, files_up_to: Callable[[int], None], fitted: list[Any], files: Any, size: int
) -> None:
    words = ("--task", "glue/cola", "--set", "runtime.checkpoint_s=0")
    done = bench("--method", "linear", *words)
    before = files(done.folder)
    files_up_to(size)
    outcome = bench("--method", "linear,lora,bitfit", *words)
    files_up_to(-1)
    assert outcome.code == 3, outcome.err
    what, known, todo = three_parts(outcome, skip=1)
    assert "File too large" in what and str(outcome.folder) in what
    assert "finished runs and their records are complete" in known and "same command again" in todo
    after = files(outcome.folder)
    assert {name: after.pop(name) for name in before} == before
    assert all(content for _, content in after.values()) and not [name for name in after if name.endswith(".tmp")]
    assert not [folder for folder in outcome.folder.iterdir() if not [*folder.iterdir()]]
    fitted.clear()
    again = bench("--method", "linear,lora,bitfit", *words)
    assert again.code == 0 and [method for method, _ in fitted] == ["lora", "bitfit"]


@pytest.mark.parametrize("verb", [("run", "--method", "full", "--task", "digits"), ("reproduce", "parsimony")])
def test_a_folder_that_cannot_be_written_is_refused_before_training(
    command: Any, fitted: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    def deny(dir: Path) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{dir}/probe")

    monkeypatch.setattr("tempfile.TemporaryFile", deny)  # root may write everywhere
    outcome = command(*verb, "--out", str(tmp_path / "there"), folder=tmp_path)
    assert outcome.code == 3
    what, known, todo = three_parts(outcome)
    assert "cannot be written" in what and "Permission denied" in known and "another folder" in todo
    assert not fitted and not [*tmp_path.glob("there/**/record.json")]


def test_a_run_s_file_that_may_not_be_written_is_the_machine_s_problem(tmp_path: Path) -> None:
    from bench.harness.failures import explain

    ours, theirs = tmp_path / "run", tmp_path / "data"
    ours.mkdir()
    with pytest.raises(MachineProblem, match=r"spectra\.npz: Permission denied"):
        explain(PermissionError(errno.EACCES, "", str(ours / "spectra.npz")), ours)
    with pytest.raises(MachineProblem, match="No space left"):
        explain(RuntimeError("I/O error: No space left on device (os error 28)"), ours)
    assert explain(PermissionError(errno.EACCES, "", str(theirs)), ours)[0] == "failed"
    assert explain(RuntimeError("(os error 2)"), ours)[0] == "failed"


def test_a_clock_that_goes_back_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch, fitted: list[Any]) -> None:
    from bench.training.callbacks import LossCurve

    words = ("--method", "lora,linear", "--task", "glue/cola", "--set", "runtime.checkpoint_s=0")
    with monkeypatch.context() as patch:
        patch.setattr(LossCurve, "on_train_end", lambda self, *args: setattr(self, "train_s", -3.5))
        outcome = bench(*words)
    assert outcome.code == 3
    what, known, _ = three_parts(outcome)
    assert "clock of this machine went backwards" in what and "training took -3.500 s" in known
    assert outcome.only().state == "running" and len(fitted) == 1
    again = bench(*words)
    assert again.code == 0 and again.records[0].cost.resumed_at == again.records[1].cost.resumed_at == ()


def test_a_missing_gpu_is_refused_before_training(
    bench: Bench, fitted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    outcome = bench("--method", "lora", "--task", "glue/cola", "--accelerator", "cuda")
    assert outcome.code == 3
    what, known, todo = three_parts(outcome)
    assert "--accelerator cuda" in what and "CUDA devices: 0" in known and "--accelerator cpu" in todo
    assert not outcome.records and not fitted
