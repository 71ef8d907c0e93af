"""`runtime.gradient_checkpointing` and `runtime.compile`: the same run, computed in another way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.training import blocks

RUN = ("--task", "glue/cola", "--backbone", "bert", "--set", "backbone.heads=2", "--set", "backbone.hidden=16")
RUN += ("--data", "embedded", "--batch-size", "8", "--epochs", "2", "--train-samples", "21", "--accelerator", "cpu")
RUN += ("--set", "spectra.of=updates,activations,gradients")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`run("name", *argv)` trains into a folder of that name and returns the record."""
    from bench import load
    from bench.cli import main

    monkeypatch.chdir(tmp_path)

    def call(name: str, *argv: str) -> Any:
        main(["run", *RUN, *argv, "--out", name])
        [made] = load(name)
        return made

    return call


@pytest.mark.parametrize("method", [("lora", "--set", "method.dropout=0.1"), ("adapterdrop", "--set", "method.n=2")])
def test_checkpointed_blocks_train_the_same_to_the_bit(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, method: tuple[str, ...]
) -> None:
    """With dropout, whose masks are drawn again; activations are counted once; a cached prefix still stands in."""
    calls: list[Any] = []
    real = blocks.checkpoint
    monkeypatch.setattr(blocks, "checkpoint", lambda *args, **options: calls.append(args[1]) or real(*args, **options))
    plain = run("plain", "--method", *method)
    assert not calls
    checkpointed = run("checkpointed", "--method", *method, "--set", "runtime.gradient_checkpointing=true")
    assert plain.state == checkpointed.state == "done", checkpointed.error
    assert calls and all(isinstance(hidden, torch.Tensor) for hidden in calls)
    for name in ("run_id", "curve", "metrics", "ranks", "spectra", "warnings"):
        assert getattr(plain, name) == getattr(checkpointed, name), name


def test_checkpointed_blocks_keep_only_their_input() -> None:
    class Block(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.exp().exp().exp()

    def kept(*, checkpointed: bool) -> int:
        block, sizes = Block(), list[int]()
        blocks.prepare_blocks(block, [block], compiled=False, checkpointed=checkpointed, device="cpu")
        x = torch.ones(8, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            y = block(x)
        y.sum().backward()
        assert x.grad is not None
        assert torch.equal(x.grad, torch.func.grad(lambda v: Block()(v).sum())(torch.ones(8)))
        return sum(sizes)

    assert (kept(checkpointed=False), kept(checkpointed=True)) == (24, 8)


def test_compiled_blocks_train_the_same(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo's part of it, without the compiler, which takes minutes on a CPU."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain = run("plain", "--method", "lora")
    counters.clear()
    compiled = run("compiled", "--method", "lora", "--set", "runtime.compile=true")
    assert counters["stats"]["unique_graphs"] > 0
    assert compiled.state == "done", compiled.error
    assert compiled.run_id == plain.run_id and len(plain.curve) == 6
    assert [p.loss for p in compiled.curve] == pytest.approx([p.loss for p in plain.curve], abs=1e-6)
    assert compiled.metrics == plain.metrics


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, blocks.COMPILERS)), reason="no C++ compiler")
@pytest.mark.parametrize("method", ["lora", "full", "adalora"])
def test_really_compiled_blocks_train_the_same(run: Callable[..., Any], method: str) -> None:
    plain = run("plain", "--method", method)
    compiled = run("compiled", "--method", method, "--set", "runtime.compile=true")
    assert [p.loss for p in compiled.curve] == pytest.approx([p.loss for p in plain.curve], abs=1e-5)


def test_what_cannot_be_prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    with pytest.raises(blocks.UsageError, match="this network has no blocks"):
        blocks.prepare_blocks(network, [], compiled=False, checkpointed=True, device="cpu")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(blocks.EnvironmentProblem, match="needs a C\\+\\+ compiler"):
        blocks.prepare_blocks(network, [], compiled=True, checkpointed=False, device="cpu")
