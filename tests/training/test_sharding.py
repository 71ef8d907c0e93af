"""`--strategy fsdp`: frozen weights in shards, and the same run."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image_reference import adapted
from networks import build

from bench.config.options import options_of
from bench.core import registry
from bench.core.errors import UsageError
from bench.harness import worker
from bench.training.sharding import ShardedFrozenWeights

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
FREEZE = [name for name in sorted(registry.entries("methods")) if registry.load_config("methods", name).freezes]


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
@pytest.mark.parametrize("method", [*FREEZE, "peft:vera"])
def test_every_method_that_freezes_weights_trains_the_same_on_shards(run: Callable[..., Any], method: str) -> None:
    config = registry.load_config("methods", method)
    image = ("--task", "digits", "--backbone", "vit", "--set", "backbone.heads=2", "--set", "backbone.width=16")
    argv = ("--method", method, *(TEXT if "text" in config.needs else image))
    argv += ("--set", "method.rank=2") if "rank" in options_of(config) else ()
    ddp, fsdp = run("ddp", *argv), run("fsdp", *argv)
    assert ddp.state == fsdp.state == "done", fsdp.error
    assert (fsdp.curve, fsdp.metrics, fsdp.ranks) == (ddp.curve, ddp.metrics, ddp.ranks)


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv",
    [
        ("adapterdrop", "method.n=2", "runtime.gradient_checkpointing=true"),  # a cached prefix
        ("lora", "method.dora=true", "method.init=pissa"),  # its forward pass reads whole weights
        ("deeplora", "method.form=compressed", "method.gamma=0"),  # factors that do not train
    ],
)
def test_what_is_unusual_trains_the_same_on_shards(run: Callable[..., Any], argv: tuple[str, ...]) -> None:
    method, *options = argv
    words = ("--method", method, *(word for option in options for word in ("--set", option)), *TEXT)
    ddp, fsdp = run("ddp", *words), run("fsdp", *words)
    assert ddp.state == fsdp.state == "done", fsdp.error
    assert (fsdp.curve, fsdp.ranks) == (ddp.curve, ddp.ranks)


@pytest.mark.parametrize("method", sorted({*registry.entries("methods")} - {*FREEZE}))
def test_a_method_that_trains_every_weight_is_refused_before_training(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.cli import main

    monkeypatch.chdir(tmp_path)
    where = TEXT if "text" in registry.load_config("methods", method).needs else ("--task", "digits")
    assert main(["run", "--method", method, *where, *RUN, "--strategy", "fsdp", "--dry-run"]) == 2
    assert f"{method} with --strategy fsdp has nothing to shard" in capsys.readouterr().err


def test_what_no_config_foresees_is_refused_before_the_first_step() -> None:
    """A method that leaves frozen weights, in a network without blocks."""
    method = adapted("lora", build("mlp", (1, 8, 8), width=16), target="all-linear")
    assert method.frozen()
    with pytest.raises(UsageError, match="has nothing to shard"):
        ShardedFrozenWeights(method)
