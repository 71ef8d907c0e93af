"""What every method promises, on image networks: each that reads images, on a ViT, a ResNet and an MLP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.api.task import TaskSpec
from bench.backbones import open_backbone
from bench.config.sections import RuntimeConfig
from bench.core import registry
from bench.records.data import Arrays, DataRequest, Dataset
from bench.training.trainer import FILE
from tasks.images.base import ImageConfig, ImageTask

METHODS = sorted(name for name in registry.entries("methods") if "image" in registry.load_config("methods", name).needs)
SMALL: dict[str, dict[str, Any]] = {
    "vit": {"width": 32, "depth": 2, "heads": 2},
    "mlp": {"width": 24, "depth": 3},
    "timm:test_resnet": {},
}
MISFITS = {("adapter", "mlp"), ("adapterdrop", "mlp"), ("mae", "mlp"), ("mae", "timm:test_resnet")}
"""Networks without the blocks, patches or dropout that a method needs: refused, each with its reason."""
CASES = [(m, b) for b in SMALL for m in METHODS if (m, b) not in MISFITS]
each = pytest.mark.parametrize(("name", "backbone"), CASES)
on_vit = pytest.mark.parametrize("name", METHODS)
STEPS, TRAIN, BATCH = 12, 34, 16
Make = Callable[..., Any]


class Toy(ImageTask):
    """Grey 16×16 pictures; the class says whether the left or the right half is the brighter."""

    def __init__(self) -> None:
        self.spec = TaskSpec(
            name="toy/halves",
            version=1,
            modality="image",
            num_classes=2,
            metrics=("accuracy",),
            primary=("accuracy",),
            shape=(1, 16, 16),
        )
        draw = np.random.default_rng(0)
        parts: list[Arrays] = []
        for n in (TRAIN, 20):
            labels = draw.integers(0, 2, n)
            pixels = draw.integers(0, 120, (n, 16, 16, 1)).astype(np.uint8)
            for i, label in enumerate(labels):
                pixels[i, :, 8 * label : 8 * label + 8] += 100
            parts.append(Arrays(pixels, labels))
        reading = {"mean": [0.4], "std": [0.2], "classes": ["left", "right"]}
        self.dataset = Dataset(
            train=parts[0], evaluation={"test": parts[1]}, source="embedded", revision="1", reading=reading
        )

    def open(self, request: DataRequest) -> Dataset:
        return self.dataset


@pytest.fixture(scope="module")
def spec_on(make_lab: Make) -> Make:
    """`(lab, spec)` of a method on one of the small networks; the lab's other changes are keyword arguments."""
    labs: dict[str, Any] = {}

    def make(name: str, backbone: str, **changes: Any) -> tuple[Any, Any]:
        if backbone not in labs:
            config = registry.load_config("backbones", registry.opener(backbone))
            opened = open_backbone(backbone, config(**SMALL[backbone]))
            opened = replace(opened, loader="lively_networks:load")
            labs[backbone] = make_lab(backbone=opened, tasks={"toy/halves": Toy()})
        kind = registry.load_config("methods", name)
        if name.startswith("adapter"):
            changes["options"] = {"bottleneck": 8}  # of two rectified units both may be off
        given: dict[str, Any] = {"task": "toy/halves", "max_steps": STEPS}
        given["lr"] = kind.scratch_learning_rate or kind.learning_rate
        spec = labs[backbone].spec(name, **given | changes)
        return labs[backbone], spec.with_options(task=ImageConfig(augment="flip-crop"))

    return make


def logits(run: Any, method: Any) -> torch.Tensor:
    split = run.data.evaluation["test"]
    batch = run.data.collate(split, np.arange(len(split.labels)))
    with torch.no_grad():
        return method.eval()(batch["inputs"])


def tensors(method: Any) -> dict[str, torch.Tensor]:
    """Parameters and running statistics."""
    return {n: t.detach().clone() for n, t in method.state_dict().items()}


@each
def test_what_is_declared_trains_and_nothing_else_moves(spec_on: Make, name: str, backbone: str) -> None:
    lab, spec = spec_on(name, backbone)
    _, fresh = lab.build(spec)
    before = tensors(fresh)
    run = lab.run(spec)
    after, declared = tensors(run.method), {n for n, p in run.method.named_parameters() if p.requires_grad}
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    if name == "adalora":  # E is zero at the start, and again where the rank moved away
        declared -= {n for n in declared if n.endswith("factors.1") and not after[n].any()}
    statistics = {n for n in before if n not in dict(fresh.named_parameters())}
    assert moved - statistics == declared
    if not any(n.startswith("backbone") and n.endswith("bn1.weight") for n in declared):
        assert not moved & {n for n in statistics if "running" in n}, "a frozen network's statistics moved"
    assert run.losses[-1] < run.losses[0] or name in {"linear", "mae"}
    assert run.result.metrics.primary.n == 20
    assert 0 <= run.result.metrics.primary.value <= 1


@each
def test_a_repeated_run_is_the_same_run(spec_on: Make, name: str, backbone: str) -> None:
    lab, spec = spec_on(name, backbone, max_steps=3)
    one, two = lab.run(spec), lab.run(spec)
    assert one.losses == two.losses
    assert all(
        getattr(one.result, part) == getattr(two.result, part) for part in ("metrics", "ranks", "params", "curve")
    )
    other = lab.run(spec.with_(seed=1))
    assert other.losses != one.losses


@each
def test_what_is_exported_is_all_that_was_learned(spec_on: Make, name: str, backbone: str) -> None:
    lab, spec = spec_on(name, backbone, runtime={"save": "all"}, max_steps=4)
    run = lab.run(spec)
    _, fresh = lab.build(spec)
    missing = fresh.load_state_dict(load_file(run.directory / FILE), strict=False)
    assert not missing.unexpected_keys
    assert torch.equal(logits(run, fresh), logits(run, run.method))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "dropout"])
def test_micro_batches_change_nothing(spec_on: Make, name: str) -> None:
    """Augmentation and masks are drawn by example and step; 34 examples leave a last batch of 2.

    GaLore's rank stays below that of a gradient of 2 examples: what is beyond is any direction.
    """
    options = {"rank": 2} if name == "galore" else {}
    lab, spec = spec_on(name, "vit", max_steps=4, precision="64-true", options=options)
    whole, parts = (lab.run(spec.with_options(runtime=RuntimeConfig(micro_batch=micro))) for micro in (0, 4))
    assert torch.allclose(torch.tensor(whole.losses), torch.tensor(parts.losses), rtol=1e-6, atol=0)
    ours, theirs = tensors(whole.method), tensors(parts.method)
    assert all(torch.allclose(ours[n], theirs[n], rtol=0, atol=1e-6) for n in ours)


@pytest.mark.parametrize(
    ("name", "backbone", "word"), [("full", "timm:test_resnet", "BatchNorm"), ("dropout", "mlp", "dropout")]
)
def test_what_a_cut_batch_changes_is_said(spec_on: Make, name: str, backbone: str, word: str) -> None:
    lab, spec = spec_on(name, backbone, max_steps=1)
    whole, parts = (lab.run(spec.with_options(runtime=RuntimeConfig(micro_batch=micro))) for micro in (0, 4))
    assert not whole.result.warnings
    assert any(word in line and "part of each batch" in line for line in parts.result.warnings)


@on_vit
def test_an_interrupted_run_goes_on_bit_for_bit(spec_on: Make, name: str, tmp_path: Path) -> None:
    lab, spec = spec_on(name, "vit", max_steps=6, head={"dropout": 0.1}, runtime={"checkpoint_s": 0.0})

    def stop(step: int) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        lab.run(spec, tmp_path, stop)
    rest, whole = lab.run(spec, tmp_path), lab.run(spec)
    assert rest.result.cost.resumed_at == (3,)
    assert rest.losses == whole.losses[3:]
    ours, theirs = tensors(rest.method), tensors(whole.method)
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    for part in ("metrics", "ranks", "curve", "evaluations"):
        assert getattr(rest.result, part) == getattr(whole.result, part), part


@pytest.mark.parametrize("name", [method for method, network in CASES if network == "timm:test_resnet"])
def test_evaluating_on_the_way_changes_nothing(spec_on: Make, name: str) -> None:
    """Bit for bit, running statistics of BatchNorm among it, with dropout before the head."""
    lab, spec = spec_on(name, "timm:test_resnet", max_steps=6, head={"dropout": 0.1})
    plain, course = lab.run(spec), lab.run(spec.with_(evaluate=2))
    assert [row.step for row in course.result.evaluations] == [2, 4, 6]
    assert course.losses == plain.losses
    ours, theirs = tensors(course.method), tensors(plain.method)
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)
    assert (course.result.metrics, course.result.ranks) == (plain.result.metrics, plain.result.ranks)


@pytest.mark.parametrize(("name", "backbone"), sorted(MISFITS))
def test_a_network_that_does_not_fit_is_refused_with_the_reason(spec_on: Make, name: str, backbone: str) -> None:
    from bench.core.errors import UsageError

    lab, spec = spec_on(name, backbone)
    with pytest.raises(UsageError) as caught:
        lab.build(spec)
    assert caught.value.known and caught.value.todo
