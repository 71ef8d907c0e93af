"""SpectrumTracker with every method: it changes nothing, and what it saw is what numpy sees in the same matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft_options import SMALL
from torch import Tensor

from bench.config.sections import QUANTITIES, SpectraConfig
from bench.core import registry
from bench.core.errors import Diverged
from bench.spectra import Delta
from bench.spectra.files import history
from bench.training.checkpoint import path
from bench.training.trainer import build
from methods.peft_tuner.config import tuners

METHODS = sorted(name for name in registry.entries("methods") if "text" in registry.load_config("methods", name).needs)
WITHOUT_DELTA = {"linear", "bitfit", "adapter", "adapterdrop"}
TUNERS = sorted(tuners())
OFTEN = {"vera", "ia3", "oft"}
slow = pytest.mark.slow
NAMES = [*METHODS, *(pytest.param(f"peft:{t}", marks=[] if t in OFTEN else slow) for t in TUNERS)]
ALL = ",".join(QUANTITIES)
DROPOUTS = {"dropout", "vera_dropout", "module_dropout"}
STEPS = 6


def looking(**options: Any) -> SpectraConfig:
    return SpectraConfig(**options)


OFF = looking(of="none")


def spec_of(lab: Any, name: str, **changes: Any) -> Any:
    """A short run with every dropout that the method has."""
    names = {field.name for field in fields(registry.load_config("methods", name))}
    options = {**dict.fromkeys(DROPOUTS & names, 0.1), **SMALL.get(name.removeprefix("peft:"), {})}
    fixed: dict[str, Any] = {"head": {"dropout": 0.1}, "backbone": {"dropout": 0.1}, "max_steps": STEPS}
    return lab.spec(name, options=options, **{**fixed, **changes})


def of(folder: Path, quantity: str) -> dict[str, history.SpectrumHistory]:
    return history.read(folder / history.FILE).layers(quantity)


def sigma(matrix: Tensor) -> np.ndarray[Any, Any]:
    return np.linalg.svd(matrix.detach().flatten(1).double().numpy(), compute_uv=False)


def near(found: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> bool:
    """Within the floor of a Gram matrix and the rounding of float32, with zeros for what factors leave out."""
    want = np.pad(want[: len(found)], (0, max(0, len(found) - len(want))))
    return bool(np.allclose(found, want, rtol=1e-5, atol=3e-7 * max(want.max(), 1e-30)))


@pytest.mark.parametrize("name", NAMES)
def test_it_changes_nothing_and_sees_everything(lab: Any, name: str) -> None:
    spec = spec_of(lab, name)
    plain = lab.run(spec.with_options(spectra=OFF))
    run = lab.run(spec.with_options(spectra=looking(of=ALL, every=2, layers="all", window=2)))
    assert run.losses == plain.losses
    after, before = (dict(one.method.named_parameters()) for one in (run, plain))
    assert all(torch.equal(parameter, before[n]) for n, parameter in after.items())
    same = ("metrics", "params", "ranks", "curve", "warnings")
    assert [getattr(run.result, key) for key in same] == [getattr(plain.result, key) for key in same]
    assert not (plain.directory / history.FILE).exists()
    assert plain.result.spectra is None and plain.result.cost.tracking_s == 0 < run.result.cost.tracking_s

    found = history.read(run.directory / history.FILE)
    assert {one.of for one in found.spectra} == {*QUANTITIES}
    for one in found.spectra:
        ends = {"gradients": [0, 2, 4, 5], "steps": [0, 2, 4, 5]}.get(one.of, [0, 2, 4, 6])
        # a step may leave some parameters out: they have no gradient then
        assert one.steps.tolist() == ends or (one.of == "gradients" and {*one.steps.tolist()} < {*ends})
        assert np.isfinite(one.values).all() and (np.diff(one.values) <= 1e-12).all() and (one.values >= 0).all()
    deltas = dict(run.method.deltas())
    updates = found.layers("updates")
    if name in WITHOUT_DELTA or not deltas:
        assert not deltas
        trained = {n for n, p in after.items() if p.requires_grad and p.ndim > 1}
        assert len(updates) == len(trained)
        for n in trained:
            short = n.removeprefix("backbone.").removesuffix(".weight")
            assert near(updates[short].values[-1], sigma(after[n] - run.start[n]))
    else:
        assert list(updates) == list(deltas)
        for layer, delta in deltas.items():
            assert updates[layer].shape == delta.shape
            assert near(updates[layer].values[-1], sigma(delta.dense()))
    rows = run.result.spectra
    last = {(row.of, row.layer): row for row in rows.layers}
    assert set(last) == {(one.of, one.layer) for one in found.spectra}
    for measured in run.result.ranks:
        row = last["updates", measured.layer]
        assert row.step == STEPS
        assert row.effective == pytest.approx(measured.effective, rel=1e-6)
        assert (row.stable, row.norm) == pytest.approx((measured.stable, measured.norm), rel=1e-9)
    assert [row.of for row in rows.series] == list(dict.fromkeys(one.of for one in found.spectra))


# against the same matrices by other ways


def first_gradients(lab: Any, spec: Any) -> tuple[Any, dict[str, Tensor], list[Tensor]]:
    """Network, gradients and the first block's outputs of the first global batch, by plain torch."""
    task = lab.tasks[spec.task]
    data, method, _ = build(spec, task, task.dataset, lab.backbone)
    batch, kept = data.first_batch(), []
    handle = method.backbone.model.encoder.layer[0].register_forward_hook(
        lambda module, args, out: kept.append((out[0] if isinstance(out, tuple) else out).detach())
    )
    method.loss(batch).backward()
    handle.remove()
    real = batch["inputs"]["attention_mask"].bool()
    return method, {n: p.grad for n, p in method.named_parameters() if p.grad is not None}, [kept[0][real]]


@pytest.mark.parametrize("micro", [0, 4])
def test_gradients_and_activations_are_the_global_batchs(lab: Any, micro: int) -> None:
    """Before clipping, to a norm that would show, and over all micro batches."""
    spec = lab.spec("full", max_steps=2, optim={"clip": 1e-3}, runtime={"micro_batch": micro})
    run = lab.run(spec.with_options(spectra=looking(of="gradients,activations", layers="*")))
    _, gradients, [features] = first_gradients(lab, spec)
    found = of(run.directory, "gradients")
    assert set(found) >= {"model.encoder.layer.0.attention.self.query", "head", "model.embeddings.word_embeddings"}
    for name, gradient in gradients.items():
        if gradient.ndim > 1:
            one, want = found[name.removeprefix("backbone.").removesuffix(".weight")], sigma(gradient)
            assert one.shape == tuple(gradient.shape) and one.how == "gram"
            assert np.allclose(one.values[0], want, rtol=1e-4, atol=1e-6 * want[0]), name
    block = of(run.directory, "activations")["model.encoder.layer.0"]
    assert block.rows is not None and block.rows[0] == len(features) and block.how == "covariance"
    assert np.allclose(block.values[0], sigma(features) / len(features) ** 0.5, rtol=1e-5, atol=1e-6)
    assert np.allclose(block.values[1], block.values[0]), "the batch before the first step's end is the first"


def test_steps_are_what_the_optimiser_changed(lab: Any) -> None:
    """Plain gradient descent: η times the gradient, and all of them together ΔW."""
    optim = {"name": "sgd", "clip": 0.0, "schedule": "constant", "warmup": 0.0}
    spec = lab.spec("full", max_steps=3, lr=0.5, optim=optim)
    run = lab.run(spec.with_options(spectra=looking(of="updates,gradients,steps", layers="*.attention.*", every=1)))
    steps, gradients = of(run.directory, "steps"), of(run.directory, "gradients")
    assert set(steps) == set(gradients) == set(of(run.directory, "updates")) and len(steps) == 8
    for name, one in steps.items():
        assert one.steps.tolist() == [0, 1, 2]
        assert np.allclose(one.values, 0.5 * gradients[name].values, rtol=1e-4, atol=1e-5 * one.values.max())
        ends = of(run.directory, "updates")[name]
        assert np.allclose(ends.values[1], one.values[0], rtol=1e-3, atol=1e-6), "the first step is the first update"


def test_weights_are_start_plus_update(lab: Any) -> None:
    run = lab.run(lab.spec("lora", max_steps=4).with_options(spectra=looking(of="weights", layers="*query")))
    found = of(run.directory, "weights")
    assert len(found) == 2
    for name, start, delta in run.method.updates():
        if name in found:
            assert near(found[name].values[0], sigma(start))
            assert near(found[name].values[-1], sigma(start + delta.dense()))


def test_float64_takes_an_svd(lab: Any) -> None:
    run = lab.run(lab.spec("full", max_steps=1, precision="64-true"))
    assert {one.how for one in of(run.directory, "updates").values()} == {"svd"}
    factors = lab.run(lab.spec("lora", max_steps=1, precision="64-true"))
    assert {one.how for one in of(factors.directory, "updates").values()} == {"factors"}


# interruptions and numbers that are none


class Stop(Exception):
    pass


def stop(step: int) -> None:
    if step > 4:
        raise Stop


@pytest.mark.parametrize("name", ["full", "lora", "adapter"])
def test_a_run_that_goes_on_leaves_the_file_of_a_whole_one(lab: Any, name: str) -> None:
    """Interrupted with a gradient in the file that came after the checkpoint."""
    looks = looking(of=ALL, every=4, window=2, layers="all")
    spec = spec_of(lab, name, max_steps=8).with_options(spectra=looks)
    folder, kept = lab.folder(), spec_of(lab, name, max_steps=8, runtime={"checkpoint_s": 0})
    with pytest.raises(Stop):
        lab.run(kept.with_options(spectra=looks), folder, stop)
    assert 4 in next(iter(of(folder, "gradients").values())).steps, "it came after the checkpoint"
    saved = torch.load(path(folder, world=1, parts=1), weights_only=True)["callbacks"]["SpectrumTracker"]
    assert {step for rows in saved["log"] if rows["of"] == "gradients" for step in rows["steps"]} == {0}
    again, whole = lab.run(spec, folder), lab.run(spec)
    assert again.result.cost.resumed_at == (4,)
    one, other = (history.read(run.directory / history.FILE).spectra for run in (again, whole))
    assert [(s.of, s.layer, s.shape, s.how) for s in one] == [(s.of, s.layer, s.shape, s.how) for s in other]
    for mine, theirs in zip(one, other, strict=True):
        assert mine.steps.tolist() == theirs.steps.tolist()
        assert np.array_equal(mine.values, theirs.values), (mine.of, mine.layer)
        assert (mine.rows is None and theirs.rows is None) or mine.rows.tolist() == theirs.rows.tolist()
    assert again.result.spectra == whole.result.spectra


def test_activations_go_on_inside_a_window(lab: Any) -> None:
    """The checkpoint after step 4 lies between the batches that count for the snapshot after step 6."""
    looks = looking(of="activations", every=6, window=4)
    folder, spec = lab.folder(), spec_of(lab, "lora", runtime={"checkpoint_s": 0}).with_options(spectra=looks)
    with pytest.raises(Stop):
        lab.run(spec, folder, stop)
    again, whole = lab.run(spec, folder), lab.run(spec)
    single = lab.run(spec.with_options(spectra=looking(of="activations", every=1, window=1)))
    assert again.result.cost.resumed_at == (4,)
    for layer, mine in of(again.directory, "activations").items():
        theirs, each = (of(run.directory, "activations")[layer] for run in (whole, single))
        assert mine.rows.tolist() == theirs.rows.tolist() == [each.rows[0], each.rows[3:].sum()]
        assert np.array_equal(mine.values, theirs.values)
        energy = (each.values**2).sum(1) * each.rows  # of single batches: Σ‖x‖², which adds up
        assert (theirs.values[1] ** 2).sum() * theirs.rows[1] == pytest.approx(energy[3:].sum(), rel=1e-9)


def test_a_matrix_with_a_nan_is_named_and_training_goes_on(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import methods.full.method

    real: Callable[..., Any] = methods.full.method.Full.deltas

    def deltas(self: Any) -> Any:
        for i, (name, delta) in enumerate(real(self)):
            hurt = i == 2 and self._trainer is not None and self.trainer.training and self.trainer.global_step == 2
            yield name, Delta(factors=(delta.factors[0] * float("nan"),), nominal=1) if hurt else delta

    plain = lab.run(lab.spec("full", max_steps=4))
    monkeypatch.setattr(methods.full.method.Full, "deltas", deltas)
    run = lab.run(lab.spec("full", max_steps=4).with_options(spectra=looking(every=2)))
    assert run.losses == plain.losses
    [line] = [w for w in run.result.warnings if "NaN" in w]
    layer = [name for name, _ in real(run.method)][2]
    assert line == f"updates of {layer}: a NaN or an infinity at step 2, so no spectrum"
    found = of(run.directory, "updates")
    assert np.isnan(found[layer].values[1]).all() and np.isfinite(found[layer].values[[0, 2]]).all()
    assert all(np.isfinite(one.values).all() for name, one in found.items() if name != layer)
    [series] = run.result.spectra.series
    assert all(np.isfinite(series.effective))


def test_a_diverging_run_leaves_what_was_seen(lab: Any) -> None:
    folder = lab.folder()
    spec = lab.spec("full", max_steps=9, lr=1e30, optim={"warmup": 0.0, "clip": 0.0}).with_options(
        spectra=looking(every=1)
    )
    with pytest.raises(Diverged):
        lab.run(spec, folder)
    assert next(iter(of(folder, "updates").values())).steps[0] == 0


def test_a_full_disk_stops_no_training(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, spectra: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "write", write)
    run = lab.run(lab.spec("lora", max_steps=3))
    assert [w for w in run.result.warnings if "spectra" in w] == [
        "spectra.npz could not be written: No space left on device"
    ]
    assert run.result.spectra.layers


# what is chosen


def test_by_default_thin_updates_of_all_layers_or_four_wide_ones(lab: Any) -> None:
    thin, wide = lab.run(lab.spec("lora", max_steps=10)), lab.run(lab.spec("full", max_steps=10))
    assert list(of(thin.directory, "updates")) == [name for name, _ in thin.method.deltas()]
    assert set(of(wide.directory, "updates")) == {name for name, _ in wide.method.deltas()}, "width 32 is thin"
    assert all(one.steps.tolist() == [0, 2, 4, 6, 8, 10] for one in of(wide.directory, "updates").values())
    assert {one.of for one in history.read(thin.directory / history.FILE).spectra} == {"updates"}


def test_a_pattern_that_names_nothing_is_a_warning(lab: Any) -> None:
    run = lab.run(
        lab.spec("lora", max_steps=2).with_options(spectra=looking(of="updates,activations", layers="*query,blok*"))
    )
    notes = [w for w in run.result.warnings if "names none" in w]
    assert [note.partition(":")[0] for note in notes] == [
        "spectra.layers=blok* names none of the updates",
        "spectra.layers=blok* names none of the activations",
    ]
    assert len(of(run.directory, "updates")) == 2
