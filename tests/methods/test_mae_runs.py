"""Whole runs of MAE: labels reach the head alone, what is kept is the backbone, and what every method promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mae_lab
import numpy as np
import pytest
import torch
from mae_lab import KINDS, spec
from safetensors.torch import load_file
from torch import Tensor

from bench.backbones import runs
from bench.core.errors import UsageError
from bench.training.checkpoint import path
from bench.training.trainer import FILE

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def images(make_lab: Callable[..., Any]) -> Any:
    """The small vision transformer on its tasks."""
    return make_lab(backbone=mae_lab.backbone(), tasks=mae_lab.tasks())


@pytest.fixture(scope="module")
def trained(images: Any) -> Any:
    """A run of the defaults."""
    return images.run(spec(images))


def test_uniformity_spreads_the_features(images: Any) -> None:
    found: list[float] = []
    for weight in (0.0, 10.0):
        run = images.run(spec(images, options={"uniformity": weight}))
        batch = run.data.collate(run.data.train, np.arange(34))
        with torch.no_grad():
            unit = torch.nn.functional.normalize(run.method.eval().backbone(**batch["inputs"]), dim=-1)
        found.append(float((unit @ unit.T).square().mean()))
    assert found[1] < found[0] - 0.1


def test_uniformity_refuses_a_batch_in_pieces(images: Any) -> None:
    with pytest.raises(UsageError, match="in one piece"):
        images.run(spec(images, options={"uniformity": 0.01}, max_steps=1, runtime={"micro_batch": 4}))


def test_labels_change_nothing_but_the_head(images: Any, trained: Any, make_lab: Callable[..., Any]) -> None:
    """Through the whole of training: the common norm at which gradients are clipped holds none of the head's."""
    tasks = mae_lab.tasks()
    rows = tasks["toy/stripes"].dataset.train
    rows.targets[:] = (rows.targets + 1) % 3
    other = make_lab(backbone=images.backbone, tasks=tasks)
    run = other.run(spec(other))
    ours, theirs = trained.method.state_dict(), run.method.state_dict()
    assert {n for n in ours if not torch.equal(ours[n], theirs[n])} == {"head.weight", "head.bias"}


def test_gradients_are_clipped(images: Any) -> None:
    runs = [images.run(spec(images, max_steps=3, optim={"eps": 1.0, "clip": clip})) for clip in (1e-9, 1.0)]
    moved = [max(float((p - r.start[n]).abs().max()) for n, p in r.method.named_parameters()) for r in runs]
    assert moved[0] < 1e-5 * moved[1]  # Adam would undo the clipping without its large eps


@each_kind
def test_only_what_is_declared_trains(images: Any, make_lab: Callable[..., Any], kind: str) -> None:
    lab = make_lab(backbone=mae_lab.backbone(**KINDS[kind]), tasks=images.tasks)
    run = lab.run(spec(lab, max_steps=4))
    now = dict(run.method.named_parameters())
    declared = {n for n, p in now.items() if p.requires_grad}
    assert {n for n, p in now.items() if not torch.equal(p, run.start[n])} == declared
    frozen = set(now) - declared
    assert all(".attn_pool." in name for name in frozen) and bool(frozen) == (kind == "attention pool")
    grouped = [id(p) for group in run.method.param_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(now[n]) for n in declared)


@pytest.mark.parametrize("task", ["toy/stripes", "toy/slopes", "toy/pictures"])
def test_twenty_steps_lower_every_loss(images: Any, task: str) -> None:
    run = images.run(spec(images, task=task))
    data, fresh = images.build(spec(images, task=task))
    batch = data.collate(data.train, np.arange(34))
    values: list[Tensor] = []
    for method in (fresh.eval(), run.method.eval()):
        with torch.no_grad():
            keep = method.visible(batch)
            errors = method.errors(batch["inputs"]["x"], method.encoder(batch["inputs"]["x"], keep), keep).mean()
            values.append(torch.stack([errors, method.loss(batch) - errors]))
    learned = values[0] - values[1]
    assert learned[0] > 0.05
    assert learned[1] > 5e-3 or task == "toy/pictures"
    assert len(run.losses) == 20


def test_what_a_run_reports(images: Any, trained: Any) -> None:
    """Probe and reconstruction on dev, at the end and on the way, from the same masks every time."""
    data, method = trained.data, trained.method.eval()
    batch = data.collate(data.evaluation["dev"], np.arange(48))
    keep = method.visible(batch)
    with torch.no_grad():
        guess = method(batch["inputs"]).argmax(-1)
        x = batch["inputs"]["x"]
        errors = method.errors(x, method.encoder(x, keep), keep)
    found = trained.result.metrics
    assert found.primary.name == "accuracy" and found.primary.higher_is_better
    assert found.all["dev"] == {
        "accuracy": pytest.approx(float((guess == batch["labels"]).float().mean()), abs=1e-6),
        "reconstruction": pytest.approx(float(errors.mean()), rel=1e-5),
    }
    assert [row.step for row in trained.result.evaluations] == [5, 10, 15, 20]
    assert trained.result.evaluations[-1].metrics == found.all


def test_evaluating_on_the_way_changes_no_step(images: Any) -> None:
    """Dropout draws from the global generator, which an evaluation must leave as it was."""
    often, never = (
        images.run(spec(images, max_steps=6, backbone={"dropout": 0.1}, options={"evaluations": count})).losses
        for count in (3, 0)
    )
    assert often == never


def test_without_labels_the_reconstruction_is_what_counts(images: Any) -> None:
    run = images.run(spec(images, task="toy/pictures"))
    primary = run.result.metrics.primary
    assert (primary.name, primary.higher_is_better) == ("reconstruction", False)
    assert run.result.metrics.all["dev"] == {"reconstruction": primary.value}
    assert run.result.params.head == 0


def test_a_number_is_probed_too(images: Any) -> None:
    run = images.run(spec(images, task="toy/slopes", max_steps=60))
    found = run.result.metrics.all["dev"]
    assert set(found) == {"pearson", "reconstruction"} and found["pearson"] > 0.1


def test_a_seed_repeats_a_run_and_another_does_not(images: Any, trained: Any) -> None:
    again, other = images.run(spec(images)), images.run(spec(images, seed=1, max_steps=2))
    assert again.losses == trained.losses and other.losses != trained.losses[:2]
    for part in ("metrics", "curve", "params", "evaluations"):
        assert getattr(again.result, part) == getattr(trained.result, part)
    ours, theirs = load_file(again.directory / FILE), load_file(trained.directory / FILE)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_micro_batches_change_nothing(images: Any) -> None:
    """34 examples in batches of 16: every third batch holds 2, so that two of its four parts are empty."""
    runs = [
        images.run(spec(images, max_steps=6, precision="64-true", runtime={"micro_batch": micro})) for micro in (0, 4)
    ]
    whole, parts = (torch.tensor(run.losses) for run in runs)
    assert len(whole) == len(parts) == 6
    assert torch.allclose(whole, parts, rtol=1e-6, atol=0)
    ours, theirs = (run.method.state_dict() for run in runs)
    assert all(torch.allclose(ours[n], theirs[n], rtol=0, atol=1e-6) for n in ours)
    assert [row.step for row in runs[1].result.evaluations] == [2, 3, 5, 6]


def test_export_is_what_trains_and_loads_back(images: Any, trained: Any) -> None:
    _, fresh = images.build(spec(images, seed=11))
    loaded = fresh.load_state_dict(load_file(trained.directory / FILE), strict=False)
    assert not loaded.unexpected_keys and not loaded.missing_keys
    batch = trained.data.collate(trained.data.train, np.arange(34))
    with torch.no_grad():
        fresh.seed = 0  # whose masks they were
        assert torch.equal(fresh.eval().loss(batch), trained.method.eval().loss(batch))


def test_the_saved_backbone_holds_nothing_of_the_decoder(trained: Any) -> None:
    kept = load_file(trained.directory / runs.FOLDER / runs.WEIGHTS)
    fresh = mae_lab.network(seed=5).eval()
    fresh.load_state_dict(kept)  # strict: every name, and no other
    batch = trained.data.collate(trained.data.train, np.arange(34))
    with torch.no_grad():
        assert torch.equal(fresh(**batch["inputs"]), trained.method.eval().backbone(**batch["inputs"]))


STEPS, BEFORE = 8, 4
PROGRAM = """
import json, sys, tempfile
from pathlib import Path
import torch
import lab as labs, mae_lab
from bench.core import registry
from bench.records.spec import RunSpec
registry.entries("tasks")["toy"] = labs.TOY
torch.set_num_threads(1)
lab = labs.Lab(backbone=mae_lab.backbone(), folder=lambda: None, tasks=mae_lab.tasks())
given = json.load(sys.stdin)
spec = RunSpec.from_json(given["spec"], backbone=mae_lab.ToyConfig)
result = lab.run(spec, Path(given["directory"])).result.to_json()
Path(given["directory"], "resumed.json").write_text(json.dumps(result))
"""


class Stop(Exception):
    pass


def stop(step: int) -> None:
    if step > BEFORE:
        raise Stop


def test_resumed_in_another_process_equals_uninterrupted(images: Any) -> None:
    """Bit for bit, with dropout, evaluations on the way among it."""
    spec_of = lambda **runtime: spec(  # noqa: E731
        images, max_steps=STEPS, head={"dropout": 0.1}, backbone={"dropout": 0.1}, runtime={"save": "all", **runtime}
    )
    folder = images.folder()
    with pytest.raises(Stop):
        images.run(spec_of(checkpoint_s=0), folder, stop)
    kept = torch.load(path(folder, world=1, parts=1), weights_only=True)["state_dict"]
    here = os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path])
    job = json.dumps({"directory": str(folder), "spec": spec_of(checkpoint_s=0).to_json()})
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, input=job, text=True, capture_output=True, env={**os.environ, "PYTHONPATH": here})
    assert done.returncode == 0, done.stderr
    whole = images.run(spec_of(checkpoint_s=None))
    there, want = json.loads((folder / "resumed.json").read_text()), whole.result.to_json()
    assert there["cost"].pop("resumed_at") == [BEFORE]
    del there["cost"], want["cost"]
    assert there == want
    found, expected = (load_file(f / FILE) for f in (folder, whole.directory))
    assert kept.keys() == found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
