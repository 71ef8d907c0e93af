"""What a method promises, as checks of a `Subject`: each returns, or raises `Broken` or `NotApplicable` with a reason.

`bench.checks.run.NAMES` lists them.
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from unittest import SkipTest

import torch
from safetensors.torch import load_file, save_file

from bench.api.dropout import drops
from bench.api.lowrank.peft import WRAPPER
from bench.api.method import Method
from bench.api.network import MakesHead
from bench.api.peft import write_folder
from bench.api.running_statistics import moving_statistics
from bench.checks.function import changes_of, distance, merged, outputs, shake
from bench.checks.subject import OTHER_SEED, Subject, evaluation_batch
from bench.core.errors import UsageError
from bench.records.record import ADAPTER
from bench.records.spec import RunSpec

ROUNDING, ROUNDING_32 = 1e-6, 1e-4
"""What rounding may change in outputs, relative to what the method changes: in float64, and in float32."""
VISIBLE = 1e-3
"""Change of the outputs that shows that something acts."""
STOP_AFTER, RESUMED_STEPS = 3, 6
PART, PART_STEPS = 4, 3
"""Micro batch, and steps of a run in such parts: the third batch of 34 examples holds 2, and half of its parts none."""


class Broken(AssertionError):
    """A promise that a method does not keep."""


class NotApplicable(SkipTest):
    """A promise that a method does not make; pytest counts it as skipped."""


def can_be_built(subject: Subject) -> None:
    """The method can be built on the network: else there would be no subject."""


def options_survive_the_record(subject: Subject) -> None:
    """A record gives the options back."""
    spec = subject.spec
    back = RunSpec.from_json(json.loads(json.dumps(spec.to_json())), backbone=type(spec.options.backbone))
    given, wanted = back.options.method, spec.options.method
    _require(given == wanted, f"a record gives back {given}, not {wanted}")


def parameters_follow_the_formula(subject: Subject) -> None:
    """The docstring states the trained parameters, and `expected_parameters` is what is counted."""
    kind = type(subject.spec.options.method)
    documented = "Parameters:" in f"{kind.__doc__} {subject.kind.__doc__}"
    _require(documented, f"the docstring of {kind.__name__} has no line 'Parameters: …' with the count as a formula")
    _, method = subject.build()
    expected, counts = method.expected_parameters(), method.parameter_counts()
    if expected is None:
        raise NotApplicable("expected_parameters declares no formula")
    counted = counts["trainable"] - counts["head"]
    _require(expected == counted, f"expected_parameters gives {expected:,}; beside the head train {counted:,}")


def starts_at_the_backbone(subject: Subject) -> None:
    """Before the first step it computes the backbone's function."""
    data, method = subject.build()
    if not method.starts_at_backbone:
        raise NotApplicable("it declares starts_at_backbone = False")
    batch = evaluation_batch(data)
    error = distance(outputs(method, batch), outputs(method, batch, subject.network()))
    _require(error <= ROUNDING, f"its outputs differ from the backbone's by {error:.1e} before the first step")


def the_head_follows_from_the_seed(subject: Subject) -> None:
    """The head starts as every method's, from the run's seed alone."""
    _, method = subject.build()
    if isinstance(method.backbone, MakesHead):
        raise NotApplicable("the network makes its own head")
    generator = torch.Generator().manual_seed(subject.spec.seed)
    want = torch.randn(method.head.weight.shape, generator=generator) * 0.02
    _require(torch.equal(method.head.weight, want), "its weight is not the N(0, .02²) that `Method` drew")


def each_trained_tensor_learns(subject: Subject) -> None:
    """Each trained tensor gets a gradient and moves."""
    run = subject.trained
    declared = {name: p for name, p in run.method.named_parameters() if p.requires_grad}
    _require_none(declared.keys() - run.with_gradient, f"no gradient in {len(run.losses)} steps")
    _require_none({name for name, p in declared.items() if torch.equal(p, run.start[name])}, "did not move")


def no_frozen_tensor_moves(subject: Subject) -> None:
    """What does not train stays as it was."""
    run = subject.trained
    frozen = {name: p for name, p in run.method.named_parameters() if not p.requires_grad}
    moved = {name for name, p in frozen.items() if not torch.equal(p, run.start[name])}
    _require_none(moved, "moved, though it does not require a gradient")


def each_trained_tensor_has_one_group(subject: Subject) -> None:
    """`param_groups` has each trained tensor once."""
    _, method = subject.build()
    names = {id(p): name for name, p in method.named_parameters()}
    grouped = [names.get(id(p), "(no parameter)") for group in method.param_groups() for p in group["params"]]
    declared = {name for name, p in method.named_parameters() if p.requires_grad}
    _require_none(declared - {*grouped}, "in no group of param_groups")
    _require_none({*grouped} - declared, "in a group of param_groups, though it does not train")
    _require_none({name for name in grouped if grouped.count(name) > 1}, "in param_groups twice")


def a_short_run_lowers_the_loss(subject: Subject) -> None:
    """A short run lowers the loss on the examples of training."""
    run = subject.trained
    batch = run.data.collate(run.data.train, torch.arange(len(run.data.train.lengths)).numpy())
    _, fresh = subject.build()
    with torch.no_grad():
        before, after = float(fresh.loss(batch)), float(run.method.loss(batch))
    course = f"from {before:.4g} to {after:.4g} in {len(run.losses)} steps at lr {subject.spec.lr:g}"
    _require(after < before, f"the loss went {course}")


def a_seed_repeats_a_run(subject: Subject) -> None:
    """The same seed gives the same losses and weights to the bit; another seed gives others."""
    first, again = subject.trained, subject.train()
    differs = [step for step, (a, b) in enumerate(zip(first.losses, again.losses, strict=True)) if a != b]
    _require(not differs, f"the loss of step {differs[:1]} is another in a second run: draw from self.seed alone")
    state = again.method.state_dict()
    _require_none({n for n, t in first.method.state_dict().items() if not torch.equal(t, state[n])}, "not repeated")
    other = subject.train(seed=OTHER_SEED, max_steps=2)
    _require(other.losses != first.losses[:2], "another seed gives the same losses")


def delta_is_the_change_of_the_function(subject: Subject) -> None:
    """The backbone with ΔW added to its weights computes what the method computes."""
    data, method = subject.build()
    method.double()
    if not changes_of(method):
        raise NotApplicable("it yields no ΔW")
    named = {name for name, _ in method.deltas()}
    if updates := {name for name, _, _ in method.updates()}:
        _require_none(named ^ updates, "in one of deltas and updates alone")
    batch = evaluation_batch(data)
    start = outputs(method, batch)
    shake(method)
    want = outputs(method, batch)
    change = distance(want, start)
    _require(change > VISIBLE, f"moving all that trains by a lot changes the outputs by {change:.1e} alone")
    network, absent = merged(subject.network().double(), method, batch)
    _require_none(absent, "has a ΔW, and the backbone has no such layer")
    error = distance(outputs(method, batch, network), want)
    known = f"their outputs differ by {error:.1e}; the method changes them by {change:.1e}"
    _require(error <= ROUNDING * max(1.0, change), f"the backbone plus ΔW is another function: {known}")


def nominal_rank_bounds_the_rank(subject: Subject) -> None:
    """No ΔW has a higher rank than it declares."""
    _, method = subject.build()
    shake(method.double())
    deltas = dict(method.deltas())
    if not deltas:
        raise NotApplicable("it yields no ΔW")
    ranks = {name: int(torch.linalg.matrix_rank(delta.dense().detach(), rtol=1e-9)) for name, delta in deltas.items()}
    above = {
        f"{n}: rank {ranks[n]}, nominal {delta.nominal}" for n, delta in deltas.items() if ranks[n] > delta.nominal
    }
    _require_none(above, "the true rank is higher than the nominal one")


def export_loads_back(subject: Subject) -> None:
    """The export is what trains and what `frozen_exports` declares; with any seed it makes the same function again."""
    run = subject.trained
    exported = run.method.export()
    trains = {name for name, p in run.method.named_parameters() if p.requires_grad}
    moving = {f"backbone.{name}" for name in moving_statistics(run.method.backbone)}
    _require_none(trains - exported.keys(), "trains, and is not exported")
    frozen = {name for name in exported.keys() - trains - moving if not _declared(run.method, name)}
    _require_none(frozen, "exported, though it neither trains nor is declared in frozen_exports")
    _, fresh = subject.build(seed=OTHER_SEED)
    batch = evaluation_batch(run.data)
    before, want = outputs(fresh, batch), outputs(run.method, batch)
    with tempfile.TemporaryDirectory() as folder:
        save_file({name: tensor.contiguous() for name, tensor in exported.items()}, Path(folder) / ADAPTER)
        unexpected = fresh.load_state_dict(load_file(Path(folder) / ADAPTER), strict=False).unexpected_keys
    _require_none({*unexpected}, "exported, and a new run has no such tensor")
    error = distance(outputs(fresh, batch), want)
    _require(error == 0, f"a run of another seed that loads it differs by {error:.1e}: something drawn is not exported")
    _require(distance(before, want) > 0, "loading it changes nothing")


def an_interrupted_run_resumes(subject: Subject) -> None:
    """A run that was interrupted goes on from its checkpoint to the same weights, to the bit."""
    spec = subject.spec.with_(max_steps=RESUMED_STEPS)
    spec = spec.with_options(runtime=spec.options.runtime.changed(save="all", checkpoint_s=0.0))

    class Stop(Exception):
        pass

    def stop(step: int, loss: float) -> None:
        if step > STOP_AFTER:
            raise Stop

    with tempfile.TemporaryDirectory() as parent:
        whole, stopped = Path(parent) / "whole", Path(parent) / "stopped"
        whole.mkdir()
        stopped.mkdir()
        subject.fit(spec, whole)
        with suppress(Stop):
            subject.fit(spec, stopped, stop)
        again = subject.fit(spec, stopped)
        ours, theirs = load_file(whole / ADAPTER), load_file(stopped / ADAPTER)
    _require(bool(again.cost.resumed_at), "the checkpoint was not taken up: the run began anew")
    differing = {name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])}
    _require_none(differing, "another value after an interruption: keep its state in a buffer")


def micro_batches_change_nothing(subject: Subject) -> None:
    """Batches in parts give the losses and weights of whole batches."""
    _, method = subject.build()
    if drops(method) or moving_statistics(method.backbone):
        raise NotApplicable("dropout or BatchNorm act here, and depend on how a batch is cut")
    runtime = subject.spec.options.runtime
    runs = [
        subject.train(
            max_steps=PART_STEPS,
            precision="64-true",
            options=subject.spec.with_options(runtime=runtime.changed(micro_batch=micro)).options,
        )
        for micro in (0, PART)
    ]
    whole, parts = (torch.tensor(run.losses) for run in runs)
    _require(torch.allclose(whole, parts, rtol=1e-6, atol=0), f"losses differ by {distance(whole, parts):.1e}")
    ours, theirs = (run.method.state_dict() for run in runs)
    _require_none({name for name in ours if distance(ours[name], theirs[name]) > ROUNDING}, "another value in parts")


def peft_computes_the_same(subject: Subject) -> None:
    """The adapter that `Method.peft` writes computes the same in peft."""
    kind = subject.kind
    if kind.peft.__func__ is Method.peft.__func__:
        raise NotApplicable("it declares no equivalent in peft")
    if find_spec("peft") is None:
        raise NotApplicable('peft is not installed: pip install "lowrank-bench[peft]"')
    from peft import PeftModel

    run, network = subject.trained, subject.network()
    batch = evaluation_batch(run.data)
    inner = network.get_submodule(WRAPPER.rstrip(".")) if hasattr(network, WRAPPER.rstrip(".")) else network
    with tempfile.TemporaryDirectory() as parent:
        try:
            write_folder(Path(parent) / "adapter", *kind.peft(subject.spec.options.method, run.method.export()), {}, {})
        except UsageError as error:
            raise NotApplicable(error.line()) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            PeftModel.from_pretrained(inner, str(Path(parent) / "adapter")).eval()  # it changes the network in place
    want = outputs(run.method, batch)
    error, change = distance(outputs(run.method, batch, network), want), distance(want, want * 0)
    _require(error <= ROUNDING_32 * max(1.0, change), f"its outputs differ by {error:.1e}")


def _declared(method: Method, name: str) -> bool:
    return any(re.search(pattern, name) for pattern in method.frozen_exports)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise Broken(reason)


def _require_none(names: Iterable[str], what: str) -> None:
    """Raise with the first of the names, sorted, if there are any."""
    listed = sorted(names)
    more = f", … ({len(listed)} in all)" if len(listed) > 3 else ""
    _require(not listed, f"{what}: {', '.join(listed[:3])}{more}")
