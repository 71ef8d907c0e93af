"""`bench export RUN --peft DIR` and back, as its user calls it; what is loaded from it is tested elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs
from peft import PeftModel
from records import list_files
from safetensors.torch import load_file

from bench.backbones import open_backbone
from bench.backbones.image_networks import ViT
from bench.config.sections import HeadConfig
from bench.records import record
from bench.records.schema import RunError
from tasks.images.digits import Digits

Bench = Callable[..., Any]
LORA = ("--method", "lora", "--task", "glue/cola", "--set", "method.rank=4")


def test_an_exported_run_is_a_start(bench: Bench, command: Any, tmp_path: Path) -> None:
    first = bench(*LORA, "--set", "method.alpha=2").only()
    words = ("--peft", str(tmp_path / "a"), "--json")
    value = json.loads(command("export", str(tmp_path / "runs" / first.run_id), *words, folder=tmp_path).out)
    assert (value["form"], value["loads_with"]) == ("peft", "peft")
    start = (*LORA[:4], "--set")
    second = bench(*start, f"method.start={tmp_path / 'a'}", out=tmp_path / "second").only()
    options = second.spec.options.method
    assert (options["rank"], options["alpha"], options["start"][:7]) == (4, 2.0, "sha256:")
    assert second.spec.start == str(tmp_path / "a")
    assert second.curve != first.curve
    assert second.params.trainable == first.params.trainable
    (tmp_path / "a").rename(tmp_path / "b")
    moved = bench(*start, f"method.start={tmp_path / 'b'}", "--dry-run", "--json", out=tmp_path / "second")
    assert json.loads(moved.out)["runs"][0]["run_id"] == second.run_id, "content decides, not the path"
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    (tmp_path / "b" / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 3}))
    other = bench(*start, f"method.start={tmp_path / 'b'}", "--dry-run", "--json", out=tmp_path / "second")
    assert json.loads(other.out)["runs"][0]["run_id"] != second.run_id
    against = bench(*LORA[:4], "--set", "method.rank=3", "--set", f"method.start={tmp_path / 'b'}")
    assert against.code == 2
    assert "has rank 4" in against.err


def test_a_tuner_of_peft_runs_by_its_options(bench: Bench) -> None:
    words = ("--method", "peft:vera", "--task", "glue/cola")
    done = bench(*words, "--set", "method.r=4", "--set", "method.target=all-linear")
    made = done.only()
    assert "peft:vera" in done.out
    assert (made.spec.options.method["r"], len(made.ranks)) == (4, 12)
    assert "peft" in made.provenance.packages
    typo = bench(*words, "--set", "method.rr=4")
    assert typo.code == 2
    assert "Did you mean 'method.r'?" in typo.err


@torch.no_grad()
def test_a_run_on_images_exports_its_update(bench: Bench, command: Any, tmp_path: Path) -> None:
    """Its network is random, and only this suite builds it. peft adds the same ΔW to the layers of the record."""
    small = ("--set", "backbone.width=16", "--set", "backbone.depth=1", "--set", "backbone.heads=2")
    words = ("run", "--method", "lora", "--task", "digits", "--backbone", "vit", "--max-steps", "3", *small)
    words += ("--set", "method.target=all-linear", "--out", str(tmp_path / "runs"))
    done = command(*words, folder=tmp_path / "runs")
    made = done.only()
    where = ("--peft", str(tmp_path / "adapter"), "--runs", str(tmp_path / "runs"))
    assert command("export", made.run_id, *where, folder=tmp_path).code == 0
    note = json.loads((tmp_path / "adapter" / "bench.json").read_text())
    assert (note["max_length"], note["task"]["name"], note["largest_difference"]) == (None, "digits", None)
    assert "`bench export RUN --merged DIR` writes a whole network" in (tmp_path / "adapter" / "README.md").read_text()
    config = ViT.Config(width=16, depth=1, heads=2)
    task = replace(Digits().spec, shape=(1, 8, 8))
    network: Any = open_backbone("vit", config).load(task=task, head=HeadConfig(), seed=0)
    adapted = PeftModel.from_pretrained(network.model, str(tmp_path / "adapter"))
    factors = load_file(tmp_path / "runs" / made.run_id / "adapter.safetensors")
    assert len(made.ranks) == 4
    for rank in made.ranks:
        layer: Any = adapted.base_model.model.get_submodule(rank.layer.removeprefix("model."))
        a, b = (factors[f"backbone.{rank.layer}.factors.{i}"] for i in (0, 1))
        assert torch.allclose(layer.get_delta_weight("default"), 2 * b @ a, rtol=0, atol=1e-7)
        assert float(torch.linalg.matrix_norm(b @ a, 2)) * 2 == pytest.approx(rank.norm, rel=1e-4)


def test_a_start_that_is_not_there_is_exit_3(bench: Bench, tmp_path: Path) -> None:
    found = bench(*LORA, "--set", f"method.start={tmp_path / 'nowhere'}", "--dry-run")
    assert found.code == 3
    assert "is not a folder of a peft adapter" in found.err


def test_what_cannot_be_exported(bench: Bench, command: Any, tmp_path: Path) -> None:
    outcome = bench(*LORA, "--set", "runtime.save=none")
    kept = outcome.only()
    assert {path.name for path in (outcome.folder / kept.run_id).iterdir()} == {"record.json", "spectra.npz"}
    full = bench("--method", "linear", "--task", "glue/cola", out=tmp_path / "linear").only()
    runs, target = ("--runs", str(tmp_path / "runs")), ("--peft", str(tmp_path / "adapter"))

    def refused(*words: str, code: int = 2) -> str:
        found = command("export", *words, folder=tmp_path)
        assert found.code == code
        assert len(found.err.strip().splitlines()) >= 3
        assert not (tmp_path / "adapter").exists()
        return found.err

    assert "runtime.save was none" in refused(kept.run_id, *target, *runs)
    assert "no equivalent in peft" in refused(full.run_id, *target, "--runs", str(tmp_path / "linear"))
    assert "no run" in refused("abc", *target, *runs)
    assert "--peft" in refused(kept.run_id, *runs)
    tensors = tmp_path / "runs" / kept.run_id / "adapter.safetensors"
    tensors.write_bytes(b"broken")
    assert "is not a file that the run wrote" in refused(kept.run_id, *target, *runs, code=3)
    list_files(tensors.parent)
    assert "cannot be read" in refused(kept.run_id, *target, *runs, code=3)
    tensors.unlink()
    error = RunError(what="w", known="k", todo="t")
    kept = structs.replace(kept, state="failed", error=error, metrics=None)
    record.write(kept, tensors.parent)
    assert "its state is failed" in refused(kept.run_id, *target, *runs)


def test_nothing_is_written_over(bench: Bench, command: Any, tmp_path: Path) -> None:
    made = bench(*LORA).only()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    words = ("export", made.run_id, "--runs", str(tmp_path / "runs"), "--peft")
    found = command(*words, str(tmp_path / "full"), folder=tmp_path)
    assert found.code == 2
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert command(*words, str(tmp_path / "full" / "mine.txt" / "deeper"), folder=tmp_path).code == 3
    (tmp_path / "empty").mkdir()
    assert command(*words, str(tmp_path / "empty"), folder=tmp_path).code == 0
    names = {"adapter_config.json", "adapter_model.safetensors", "bench.json", "README.md"}
    assert {p.name for p in (tmp_path / "empty").iterdir()} == names | {"tokenizer.json", "tokenizer_config.json"}
    assert not list(tmp_path.glob(".empty*"))
