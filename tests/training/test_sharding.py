"""`--strategy fsdp`: frozen weights in shards, and the same run."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.config.options import options_of
from bench.core import registry
from bench.harness import worker

SHARDS = """
    import json, sys
    from pathlib import Path
    from torch.distributed.tensor import DTensor
    from bench.harness import worker
    from bench.training.callbacks import LossCurve

    real = LossCurve.on_train_batch_end

    def count(self, trainer, method, *rest):
        sharded = {name: p for name, p in method.named_parameters() if isinstance(p, DTensor)}
        of = {
            "names": [*sharded],
            "trained": [name for name, p in sharded.items() if p.requires_grad],
            "blocks": [name for name in sharded if ".layer." in name],
            "here": sum(p.to_local().numel() for p in sharded.values()),
            "all": sum(p.numel() for p in sharded.values()),
        }
        Path(sys.argv[1]).with_name(f"shards{trainer.global_rank}").write_text(json.dumps(of))
        real(self, trainer, method, *rest)

    LossCurve.on_train_batch_end = count
    sys.exit(worker.main(Path(sys.argv[1])))
"""
RUN = ("--data", "embedded", "--batch-size", "8", "--epochs", "2", "--precision", "64-true", "--accelerator", "cpu")
RUN += ("--train-samples", "21", "--lr", "1e-2", "--devices", "2")
TEXT = ("--task", "glue/cola", "--backbone", "bert", "--set", "backbone.heads=2", "--set", "backbone.hidden=16")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`run("fsdp", *argv)` trains on two devices and returns the record."""
    from bench import load
    from bench.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(strategy: str, *argv: str) -> Any:
        main(["run", *argv, *RUN, "--strategy", strategy, "--out", strategy])
        [made] = load(strategy)
        return made

    return call


def test_each_device_has_half_of_the_frozen_weights(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the results are those of ddp to the bit: weights are gathered, not rounded."""
    ddp = run("ddp", "--method", "lora", *TEXT)
    (tmp_path / "worker.py").write_text(textwrap.dedent(SHARDS))
    monkeypatch.setattr(worker, "command", lambda path: [sys.executable, str(tmp_path / "worker.py"), str(path)])
    fsdp = run("fsdp", "--method", "lora", *TEXT)
    assert fsdp.state == "done", fsdp.error
    assert (fsdp.run_id, fsdp.curve, fsdp.metrics, fsdp.ranks) == (ddp.run_id, ddp.curve, ddp.metrics, ddp.ranks)
    assert fsdp.params == ddp.params and fsdp.spectra == ddp.spectra
    [first, second] = (json.loads((tmp_path / "fsdp" / fsdp.run_id / f"shards{rank}").read_text()) for rank in (0, 1))
    assert first["trained"] == [] and first["names"] == first["blocks"] == second["names"]
    assert any("query.base.weight" in name for name in first["names"])
    assert first["here"] == second["here"] == first["all"] / 2


@pytest.mark.slow
@pytest.mark.parametrize("method", [*sorted(registry.entries("methods")), "peft:vera"])
def test_every_method_trains_the_same_on_shards_or_says_that_it_cannot(run: Callable[..., Any], method: str) -> None:
    config = registry.load_config("methods", method)
    image = ("--task", "digits", "--backbone", "vit", "--set", "backbone.heads=2", "--set", "backbone.width=16")
    argv = ("--method", method, *(TEXT if "text" in config.needs else image))
    argv += ("--set", "method.rank=2") if "rank" in options_of(config) else ()
    ddp, fsdp = run("ddp", *argv), run("fsdp", *argv)
    assert ddp.state == "done", ddp.error
    if fsdp.state == "failed":
        assert fsdp.error.what == "--strategy fsdp has nothing to shard", fsdp.error
        assert ddp.params.trainable == ddp.params.total or method in ("mae", "mlm", "dropout", "lowrank")
        return
    assert (fsdp.curve, fsdp.metrics, fsdp.ranks) == (ddp.curve, ddp.metrics, ddp.ranks)


@pytest.mark.slow
def test_shards_with_a_cached_prefix_checkpointing_and_a_resumed_run(run: Callable[..., Any]) -> None:
    argv = ("--method", "adapterdrop", "--set", "method.n=2", "--set", "runtime.gradient_checkpointing=true", *TEXT)
    assert run("fsdp", *argv).curve == run("ddp", *argv).curve
