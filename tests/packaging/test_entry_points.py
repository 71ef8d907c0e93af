"""A method and a task from a package that knows nothing of this repository but what it imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "norms-and-vowels"
version = "0.1"

[project.entry-points."lowrank_bench.methods"]
normtuning = "norms_and_vowels.method:NormTuning"

[project.entry-points."lowrank_bench.tasks"]
vowels = "norms_and_vowels.task:Vowels"
"""

METHOD = '''
"""NormTuning: only normalisation layers train."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from bench.api.method import Batch, Method
from bench.config.options import option
from bench.config.sections import MethodConfig


@dataclass(frozen=True, kw_only=True)
class NormTuningConfig(MethodConfig):
    """One option."""

    shift: bool = option(True, "Whether the shift trains too.")


class NormTuning(Method):
    """Scale and shift of every LayerNorm (arXiv 2312.11420). Parameters: Σ over LayerNorms 2·d, plus head."""

    Config: ClassVar = NormTuningConfig

    def adapt(self, batch: Batch) -> None:
        """Freeze all but the norms."""
        self.backbone.requires_grad_(False)
        for module in self.backbone.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.requires_grad_(True)
                module.bias.requires_grad_(self.config.shift)
'''

TASK = '''
"""Vowels: does a word hold more vowels than consonants?"""

import random

from bench.records.data import Dataset, DataRequest, Example
from bench.api.task import TaskSpec
from tasks.text.task import TextTask


class Vowels(TextTask):
    """Words of six letters, drawn by a fixed seed."""

    def __init__(self, cell: str = "") -> None:
        self.spec = TaskSpec(
            name="vowels", version=1, modality="text", num_classes=2, metrics=("accuracy",), primary=("accuracy",)
        )

    def open(self, request: DataRequest) -> Dataset:
        """Nothing to read."""
        draw = random.Random(0)
        words = ["".join(draw.choices("aeioubcdfg", k=6)) for _ in range(80)]
        rows = [Example(w, None, int(sum(c in "aeiou" for c in w) > 3)) for w in words]
        return Dataset(train=rows[:60], evaluation={"dev": rows[60:]}, source="embedded", revision="1")
'''

Bench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The command, in a process that finds the package where pip has put it."""
    source, site, home = (tmp_path_factory.mktemp(name) for name in ("source", "site", "home"))
    (source / "pyproject.toml").write_text(PROJECT)
    package = source / "norms_and_vowels"
    package.mkdir()
    for name, text in (("__init__.py", ""), ("method.py", METHOD), ("task.py", TASK)):
        (package / name).write_text(text)
    install = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target")
    pip = [sys.executable, "-m", "pip", "install", "-q", *install, str(site), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment.pop("BENCH_DATA", None)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench", *words]
        return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)

    return call


def test_both_are_listed_and_described(bench: Bench) -> None:
    methods, tasks, shown = bench("list", "methods"), bench("list", "tasks"), bench("show", "normtuning")
    assert "NormTuning: only normalisation layers train." in methods.stdout
    assert "Vowels: does a word hold more vowels than consonants?" in tasks.stdout
    assert "Whether the shift trains too." in shown.stdout


def test_both_run(bench: Bench, tiny_bert: Path, tmp_path: Path) -> None:
    words = ("--method", "normtuning,lora", "--task", "vowels,glue/rte", "--data", "embedded", "--max-steps", "2")
    small = ("--backbone", str(tiny_bert), "--batch-size", "8", "--train-samples", "16", "--accelerator", "cpu")
    done = bench("run", *words, *small, "--set", "method.shift=false", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    records = [json.loads(file.read_text()) for file in tmp_path.glob("*/record.json")]
    found = {(r["spec"]["method"], r["spec"]["task"]): r for r in records}
    assert {key: r["state"] for key, r in found.items()} == {
        (method, task): "done" for method in ("normtuning", "lora") for task in ("vowels", "glue/rte")
    }
    # two layers of width 32 with two norms each, and the embeddings' one; the head has 2·32 + 2
    params = found["normtuning", "vowels"]["params"]
    assert (params["trainable"], params["head"]) == (5 * 32 + 66, 66)
    assert found["lora", "vowels"]["metrics"]["primary"]["n"] == 20
    assert "normtuning" in done.stdout and "vowels" in done.stdout


def test_a_near_miss_of_its_name_is_answered(bench: Bench) -> None:
    done = bench("run", "--method", "normtunin", "--task", "vowels")
    assert done.returncode == 2
    assert "Did you mean 'normtuning'?" in done.stderr
