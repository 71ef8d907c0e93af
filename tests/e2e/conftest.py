"""A small GLUE directory in the real layouts, and `bench run` in this process as its user calls it."""

from __future__ import annotations

import io
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.records import record
from bench.records.record import Record

NAMES = ("ann", "bob", "cy", "dee", "eve", "fay")
VERBS = ("sees", "hits", "likes", "calls")
SIZES = {"CoLA": (50, 33), "SST-2": (40, 21), "MRPC": (40, 21), "STS-B": (40, 21), "RTE": (40, 33)}
"""Rows of train and dev; odd ones, so that two devices cannot share them equally."""
ABSENT = ("qqp", "mnli", "qnli", "wnli")
"""Cells of the suite that the directory does not hold, as the usual partial download."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def records(self) -> list[Record]:
        """The records in its folder, every one read and validated."""
        found, problems = record.load_all(self.folder)
        assert not problems
        return found

    def states(self) -> dict[tuple[str, str], str]:
        """State by method and task."""
        return {(r.spec.method, r.spec.task): r.state for r in self.records}

    def only(self) -> Record:
        """The one record."""
        [found] = self.records
        return found


Bench = Callable[..., Outcome]


def _sentence(draw: random.Random) -> str:
    return f"{draw.choice(NAMES)} {draw.choice(VERBS)} {draw.choice(NAMES)}"


def _row(folder: str, number: int, draw: random.Random) -> Sequence[object]:
    first, second, label = _sentence(draw), _sentence(draw), number % 2
    return {
        "CoLA": ("src", label, "" if label else "*", first if label else " ".join(sorted(first.split()))),
        "SST-2": (f'{first} is {("bad", "good")[label]} "', label),
        "MRPC": (label, number, number, first, first + " now" if label else second),
        "STS-B": (number, "g", "f", "2012", number, "s", "s", first, second, f"{draw.uniform(0, 5):.3f}"),
        "RTE": (number, first, first if label else second, ("not_entailment", "entailment")[label]),
    }[folder]


HEADERS = {
    "CoLA": "",
    "SST-2": "sentence\tlabel\n",
    "MRPC": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n",
    "STS-B": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n",
    "RTE": "index\tsentence1\tsentence2\tlabel\n",
}


def write_glue(folder: Path) -> Path:
    """Five of GLUE's tasks as the download script lays them out."""
    for name, sizes in SIZES.items():
        (folder / name).mkdir(parents=True)
        for split, size in zip(("train", "dev"), sizes, strict=True):
            draw = random.Random(f"{name}{split}")
            lines = ["\t".join(map(str, _row(name, i, draw))) for i in range(size)]
            (folder / name / f"{split}.tsv").write_text(HEADERS[name] + "\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory; nobody writes into it."""
    return write_glue(tmp_path_factory.mktemp("data") / "glue")


@pytest.fixture
def own_glue(tmp_path: Path) -> Path:
    """A directory of the test's own, to be broken."""
    return write_glue(tmp_path / "broken")


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No data folder, hub or W&B account, one thread, and a current folder that is not the repository."""
    import torch

    for name in ("BENCH_DATA", "WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "HF_HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for other processes; threads that wait for each other cost more here
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    # a shell that runs the tests in its background has them ignore Ctrl-C, and nohup the end of the terminal
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    torch.set_num_threads(threads)


@pytest.fixture
def bench(tiny_bert: Path, glue: Path, tmp_path: Path) -> Bench:
    """`bench("--method", "lora", …)` runs `bench run` here: two small steps on the directory, unless told otherwise."""

    def call(
        *more: str,
        data: Path | None = glue,
        out: Path = tmp_path / "runs",
        backbone: str = str(tiny_bert),
        budget: Sequence[str] = ("--max-steps", "2"),
    ) -> Outcome:
        where = ("--out", str(out)) if data is None else ("--out", str(out), "--data-dir", str(data))
        small = ("--batch-size", "8", "--set", "task.max_length=24", "--accelerator", "cpu")
        small += ("--set", "runtime.truncation=off")  # five more evaluations of every run
        return _command("run", "--backbone", backbone, *budget, *small, *where, *more, folder=out)

    return call


@pytest.fixture
def command() -> Callable[..., Outcome]:
    """`command("show", "lora", folder=…)` runs any verb here."""
    return _command


def _command(*words: str, folder: Path) -> Outcome:
    from bench.cli import main

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    found = Outcome(code=code, out=out.getvalue(), err=err.getvalue(), folder=folder)
    if "-v" not in words:
        assert "Traceback" not in found.err + found.out
    return found


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Method and task of every run that is trained in this process, in order."""
    import bench.training.trainer

    seen: list[tuple[str, str]] = []
    real = bench.training.trainer.fit

    def fit(spec: Any, *rest: Any, **options: Any) -> Any:
        seen.append((spec.method, spec.task))
        return real(spec, *rest, **options)

    monkeypatch.setattr(bench.training.trainer, "fit", fit)
    return seen


@pytest.fixture
def files() -> Callable[[Path], dict[str, tuple[int, bytes]]]:
    """Every file below a folder with its time of change and its content."""

    def read(folder: Path) -> dict[str, tuple[int, bytes]]:
        found = (p for p in sorted(folder.rglob("*")) if p.is_file())
        return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}

    return read
