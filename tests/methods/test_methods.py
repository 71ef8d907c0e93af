"""What every method promises, checked on each registered one: a new method gets these tests for its registry line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from merging import merge
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from bench.api.lowrank.base import LowRank
from bench.api.method import Method
from bench.core import registry
from bench.core.errors import UsageError
from bench.records.spec import RunSpec
from bench.training.trainer import FILE
from methods.peft_tuner.method import PeftTuner

METHODS = sorted(name for name in registry.entries("methods") if "text" in registry.load_config("methods", name).needs)
STANDARDISED = {"standardise": True}
COMPRESSED = {"form": "compressed", "rank": 4}
CASES = [(name, {}) for name in METHODS] + [("deeplora", COMPRESSED), ("lora", {"target": "all-linear", "rank": 3})]
CASES += [("lora", {"dora": True, "lr_ratio": 4.0}), ("lora", {"init": "pissa", "rank": 3})]
CASES += [("linear", STANDARDISED), ("adapter", {"bottleneck": 5, "activation": "gelu"}), ("adapterdrop", {"n": 1})]
CASES += [(name, {"rank": 3}) for name in ("lowrank", "galore", "apollo") if name in METHODS]
CASES += [("peft:vera", {"r": 4}), ("peft:ia3", {"target": "all-linear"}), ("peft:oft", {"oft_block_size": 8})]
IDS = [f"{name}-{'-'.join(map(str, options.values()))}" if options else name for name, options in CASES]
each = pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
MERGING = [(n, o) for n, o in CASES if issubclass(registry.load("methods", n), LowRank | PeftTuner)]
each_merging = pytest.mark.parametrize(("name", "options"), MERGING)

Trained = Callable[[str, dict[str, Any]], Any]
WIDTH, INNER, LAYERS = 32, 64, 2
QV = [(WIDTH, WIDTH)] * 2 * LAYERS
ALL_LINEAR = [*[(WIDTH, WIDTH)] * 4, (INNER, WIDTH), (WIDTH, INNER)] * LAYERS
HEAD = 2 * WIDTH + 2
BESIDE = re.compile(r"\.start_[ab]$|\.vera_[AB]\.default$|^(mean|deviation)$")
"""Frozen tensors that an export holds beside what trains: PiSSA's start, from which ΔW counts; VeRA's projections; what
linear shifts and scales features by."""


@pytest.fixture(scope="module")
def trained(lab: Any) -> Trained:
    """The run of a method's defaults, trained once for all tests that only look at it."""
    runs: dict[str, Any] = {}

    def run(name: str, options: dict[str, Any]) -> Any:
        key = json.dumps([name, options])
        if key not in runs:
            runs[key] = lab.run(lab.spec(name, options=options, runtime={"save": "all"}))
        return runs[key]

    return run


@torch.no_grad()
def logits(method: Method, batch: dict[str, Any]) -> Tensor:
    method.eval()
    return method(batch["inputs"])


def everything(data: Any) -> dict[str, Any]:
    """The dev split as one batch."""
    tokens = data.evaluation["dev"]
    return data.collate(tokens, torch.arange(len(tokens.labels)).numpy())


@torch.no_grad()
def shake(method: Method) -> None:
    """Move all that trains far from its start, so that a wrong sign or scale shows."""
    generator = torch.Generator().manual_seed(7)
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


FROM_ELSEWHERE = {"lowrank"}
"""Methods that start from another network than the backbone; what they start from is in tests of their own."""
WHOLE = {"full", "galore", "apollo", "lowrank", "dropout"}
"""Methods that train the whole network."""
WITHIN = {"bitfit"}
"""Methods that train parameters of the backbone and add none."""
FROM_BACKBONE = [c for c in CASES if c[0] not in FROM_ELSEWHERE and c[1] is not STANDARDISED]
each_from_backbone = pytest.mark.parametrize(("name", "options"), FROM_BACKBONE)


@each_from_backbone
@pytest.mark.parametrize("task", ["toy/classes", "toy/scores"])
def test_starts_as_the_plain_backbone_with_the_head(lab: Any, name: str, options: dict[str, Any], task: str) -> None:
    data, method = lab.build(lab.spec(name, options=options, task=task))
    batch = everything(data)
    plain = AutoModel.from_pretrained(lab.backbone.path).eval()
    with torch.no_grad():
        want = F.linear(plain(**batch["inputs"]).pooler_output, method.head.weight, method.head.bias)
    assert torch.allclose(logits(method, batch), want.squeeze(-1), rtol=0, atol=1e-6)


@each
def test_the_head_is_the_same_for_every_method(lab: Any, name: str, options: dict[str, Any]) -> None:
    _, method = lab.build(lab.spec(name, options=options, seed=3))
    want = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(3)) * 0.02
    assert torch.equal(method.head.weight, want)
    assert not method.head.bias.any()


@each
def test_only_what_is_declared_trains(lab: Any, name: str, options: dict[str, Any]) -> None:
    run = lab.run(lab.spec(name, options=options, max_steps=8))  # a step may leave some out
    now = dict(run.method.named_parameters())
    declared = {n for n, p in now.items() if p.requires_grad}
    changed = {n for n, p in now.items() if not torch.equal(p, run.start[n])}
    assert changed == declared
    grouped = [id(p) for group in run.method.param_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(now[n]) for n in declared), "each trained parameter is in one group, once"


def _factors(config: Any, inner: int) -> int:
    shapes = ALL_LINEAR if config.target == "all-linear" else QV
    return sum(config.rank * (m + n) + inner * config.rank**2 for m, n in shapes)


def _adapters(config: Any, blocks: int) -> int:
    b = config.bottleneck or WIDTH // 16
    return blocks * (2 * WIDTH * b + b + WIDTH)


def _products(config: Any, backbone: int) -> int:
    pooler = (WIDTH, WIDTH)
    saved = (m * n - config.rank * (m + n) for m, n in [*ALL_LINEAR, pooler])
    return backbone - sum(number for number in saved if number > 0)


FORMULAS: dict[str, Callable[[Any, int], int]] = {
    **dict.fromkeys(["full", "galore", "apollo"], lambda config, backbone: backbone),
    "dropout": lambda config, backbone: backbone + HEAD,
    "lowrank": _products,
    "linear": lambda config, backbone: 0,
    "lora": lambda config, backbone: _factors(config, 0) + (sum(m for m, _ in QV) if config.dora else 0),
    "bitfit": lambda config, backbone: LAYERS * (4 * WIDTH + INNER + WIDTH + 2 * WIDTH) + 2 * WIDTH,
    "peft:vera": lambda config, backbone: sum(config.r + m for m, _ in QV),
    "peft:ia3": lambda config, backbone: sum(n if (m, n) == (WIDTH, INNER) else m for m, n in ALL_LINEAR),
    "peft:oft": lambda config, backbone: sum(n // 8 * 8 * 7 // 2 for _, n in QV),
    "deeplora": lambda config, backbone: _factors(config, config.depth - (2 if config.form == "full" else 0)),
    "adapter": lambda config, backbone: _adapters(config, LAYERS),
    "adapterdrop": lambda config, backbone: _adapters(config, LAYERS - (config.n or 0)),
    "adalora": lambda config, backbone: sum((config.init_rank or 12) * (m + n + 1) for m, n in QV),
}
"""What a method trains beside the head, as its docstring has it, from its options and the size of the backbone."""


@each
@pytest.mark.parametrize("head", [True, False])
def test_counts_are_the_docstrings_formula(lab: Any, name: str, options: dict[str, Any], head: bool) -> None:
    assert "Parameters:" in (registry.load_config("methods", name).__doc__ or ""), (
        "the docstring gives the count as a formula"
    )
    if name not in FORMULAS:
        pytest.skip(f"FORMULAS has no entry for {name}")
    if name == "linear" and not head:
        pytest.skip("nothing left to train; test_nothing_to_train_is_refused")
    _, method = lab.build(lab.spec(name, options=options, head={"trainable": head}))
    backbone = AutoModel.from_pretrained(lab.backbone.path).num_parameters()
    adapter = FORMULAS[name](method.config, backbone)
    assert method.parameter_counts() == {
        "total": HEAD + (adapter if name in WHOLE else backbone + adapter * (name not in WITHIN)),
        "trainable": adapter + HEAD * head,
        "head": HEAD * head,
    }


@each
def test_stored_bytes_are_those_of_what_trains(trained: Trained, name: str, options: dict[str, Any]) -> None:
    run = trained(name, options)
    beside = sum(t.numel() for n, t in run.method.export().items() if BESIDE.search(n))
    assert (beside > 0) == (options.get("init") == "pissa" or name == "peft:vera" or options is STANDARDISED)
    assert run.result.params.stored_bytes == 4 * (run.result.params.trainable + beside)
    assert (run.directory / FILE).stat().st_size > run.result.params.stored_bytes


@each_merging
def test_merged_is_the_same_network(lab: Any, name: str, options: dict[str, Any]) -> None:
    data, method = lab.build(lab.spec(name, options=options))
    method.double()
    before = {n: layer.base.weight.detach().clone() for n, layer in method.layers()}
    start = logits(method, everything(data))
    shake(method)
    want = logits(method, everything(data))
    assert (want - start).abs().max() > 0.1, "the update must be visible"
    deltas = dict(method.deltas())
    merged = merge(method)
    assert torch.allclose(logits(method, everything(data)), want, rtol=0, atol=1e-9)
    assert set(deltas) == set(before) == set(merged)
    for layer_name, weight in merged.items():
        added = weight - before[layer_name]
        assert torch.allclose(added, deltas[layer_name].dense(), rtol=0, atol=1e-12)
        assert added.abs().max() > 1e-2


@each_from_backbone
def test_deltas_say_how_the_weights_moved(trained: Trained, lab: Any, name: str, options: dict[str, Any]) -> None:
    run = trained(name, options)
    plain = {n.removesuffix(".weight"): p for n, p in AutoModel.from_pretrained(lab.backbone.path).named_parameters()}
    found = {n.removeprefix("model."): delta for n, delta in run.method.deltas()}
    assert [r.layer.removeprefix("model.") for r in run.result.ranks] == [*found]
    if (name, options) in MERGING:
        _, copy = lab.build(lab.spec(name, options=options, seed=11))
        copy.load_state_dict(run.method.export(), strict=False)
        layers = {n.removeprefix("model."): weight for n, weight in merge(copy).items()}
    else:
        now = run.method.backbone.model.named_parameters()
        layers = {n.removesuffix(".weight"): p for n, p in now}
    for layer, delta in found.items():
        assert torch.allclose(delta.dense(), layers[layer] - plain[layer], rtol=0, atol=1e-6), layer
        assert torch.linalg.matrix_rank(delta.dense().double(), rtol=1e-6) <= delta.nominal
    if name in WHOLE:
        assert len(found) == len(ALL_LINEAR) + 1, "every linear layer, the pooler's too"


@each
@pytest.mark.usefixtures("toy_registered")
def test_options_survive_the_record(lab: Any, name: str, options: dict[str, Any]) -> None:
    spec = lab.spec(name, options=options)
    back = RunSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert back == spec
    kind = registry.load_config("methods", name)
    assert back.options.method == kind(**options)
    assert kind.__dataclass_params__.frozen


@each
@pytest.mark.parametrize("task", ["toy/classes", "toy/scores"])
def test_twenty_steps_lower_the_loss(trained: Trained, lab: Any, name: str, options: dict[str, Any], task: str) -> None:
    run = trained(name, options) if task == "toy/classes" else lab.run(lab.spec(name, options=options, task=task))
    batch = run.data.collate(run.data.train, torch.arange(34).numpy())
    _, fresh = lab.build(lab.spec(name, options=options, task=task))
    with torch.no_grad():
        before, after = float(fresh.eval().loss(batch)), float(run.method.eval().loss(batch))
    assert after < before - 5e-3
    assert len(run.losses) == 20


@pytest.mark.parametrize("name", [n for n in METHODS if n != "linear"])
def test_the_adapter_learns_under_a_frozen_head(lab: Any, name: str) -> None:
    spec = lab.spec(name, head={"trainable": False})
    run, (data, fresh) = lab.run(spec), lab.build(spec)
    assert torch.equal(run.method.head.weight, run.start["head.weight"])
    assert run.result.params.head == 0
    batch = data.collate(data.train, torch.arange(34).numpy())
    with torch.no_grad():
        assert float(run.method.eval().loss(batch)) < float(fresh.eval().loss(batch)) - 2e-4


@each
def test_a_seed_repeats_a_run_and_another_does_not(
    trained: Trained, lab: Any, name: str, options: dict[str, Any]
) -> None:
    first = trained(name, options)
    again = lab.run(lab.spec(name, options=options, runtime={"save": "all"}))
    assert again.losses == first.losses
    for part in ("metrics", "ranks", "curve", "params"):
        assert getattr(again.result, part) == getattr(first.result, part), part
    ours, theirs = load_file(again.directory / FILE), load_file(first.directory / FILE)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
    other = lab.run(lab.spec(name, options=options, max_steps=2, seed=1))
    assert other.losses != first.losses[:2]


def test_convolutions_add_up_in_one_order_while_a_run_lasts(lab: Any) -> None:
    cudnn, seen = torch.backends.cudnn, list[bool]()
    before = cudnn.deterministic
    lab.run(lab.spec("lora", max_steps=2), on_step=lambda step: seen.append(cudnn.deterministic))
    assert seen == [True, True]
    assert cudnn.deterministic is before is False


@each
def test_export_is_what_trains_and_loads_back(
    trained: Trained, lab: Any, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    run = trained(name, options)
    declared = {n for n, p in run.method.named_parameters() if p.requires_grad}
    assert {n for n in run.method.export() if not BESIDE.search(n)} == declared
    save_file({n: t.contiguous() for n, t in run.method.export().items()}, tmp_path / "again.safetensors")
    for file in (run.directory / FILE, tmp_path / "again.safetensors"):
        _, fresh = lab.build(lab.spec(name, options=options, seed=11))  # nothing comes from the seed
        before = logits(fresh, everything(run.data))
        missing = fresh.load_state_dict(load_file(file), strict=False)
        assert not missing.unexpected_keys
        want = logits(run.method, everything(run.data))
        assert torch.equal(logits(fresh, everything(run.data)), want)
        assert not torch.allclose(before, want, atol=1e-3)


@each
def test_micro_batches_change_nothing(lab: Any, name: str, options: dict[str, Any]) -> None:
    """34 examples in batches of 16: every third batch holds 2, so that two of its four parts are empty."""
    options = options | ({"rate": 0.0} if name == "dropout" else {})  # how a batch is cut changes masks
    runs = [
        lab.run(lab.spec(name, options=options, max_steps=6, precision="64-true", runtime={"micro_batch": micro}))
        for micro in (0, 4)
    ]
    whole, parts = (torch.tensor(run.losses) for run in runs)
    assert len(whole) == len(parts) == 6
    assert torch.allclose(whole, parts, rtol=1e-6, atol=0)
    ours, theirs = (run.method.state_dict() for run in runs)
    assert all(torch.allclose(ours[n], theirs[n], rtol=0, atol=1e-6) for n in ours)


NO_ADAPTER = {*WHOLE, "linear", "bitfit", "mlm"}
"""Methods that insert nothing on which dropout could act."""
DROPOUT = [(name, place) for name in METHODS if name != "dropout" for place in ("head", "backbone", "options")]
"""The method dropout sets every rate itself: test_dropout.py."""


@pytest.mark.parametrize(("name", "place"), [(n, p) for n, p in DROPOUT if p != "options" or n not in NO_ADAPTER])
def test_dropout_acts_in_training_alone(lab: Any, name: str, place: str) -> None:
    """On backbone, head and what the method inserts: the seed decides the masks, and evaluation has none."""
    plain, noisy = (lab.spec(name, max_steps=3, **{place: {"dropout": rate}}) for rate in (0.0, 0.5))
    one, other, again = (lab.run(spec) for spec in (plain, noisy, noisy))
    trained = [n for n, p in one.method.named_parameters() if p.requires_grad]
    ours, theirs, repeated = (run.method.state_dict() for run in (one, other, again))
    differs = [n for n in trained if not torch.equal(ours[n], theirs[n])]
    assert len(differs) > 1 or (differs and name == "linear")
    assert other.losses == again.losses and all(torch.equal(theirs[n], repeated[n]) for n in trained)
    other.method.load_state_dict(ours)
    assert torch.equal(logits(other.method, everything(one.data)), logits(one.method, everything(one.data)))


def test_nothing_to_train_is_refused(lab: Any) -> None:
    with pytest.raises(UsageError, match="nothing to train"):
        lab.run(lab.spec("linear", head={"trainable": False}, max_steps=1))


@pytest.mark.parametrize("options", [{"target": "no-such-layer"}, {"target": "("}])
def test_a_target_that_names_nothing_is_refused(lab: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"method\.target"):
        lab.build(lab.spec("lora", options=options))


def test_a_regression_head_starts_at_the_mean_label(lab: Any) -> None:
    data, method = lab.build(lab.spec("linear", task="toy/scores"))
    labels = [row.label for row in lab.tasks["toy/scores"].dataset.train]
    assert method.head.bias.item() == pytest.approx(sum(labels) / len(labels), rel=1e-6)
    batch = everything(data)
    with torch.no_grad():
        pooled = method.eval().backbone(**batch["inputs"])
        want = ((F.linear(pooled, method.head.weight, method.head.bias).squeeze(-1) - batch["labels"]) ** 2).mean()
        assert float(method.loss(batch)) == pytest.approx(float(want), rel=1e-5)
