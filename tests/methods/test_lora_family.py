"""rsLoRA, DoRA, PiSSA and LoRA+ against `peft`, from weights shaken off their start; BitFit counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from merging import merge
from peft.optimizers import create_loraplus_optimizer
from peft_reference import ALL_LINEAR, DECAY, LR, PLAIN, QV, Reference, batches_of, peft_config
from torch import Tensor, nn
from transformers import AutoModel

from bench.api.method import Method
from bench.core.errors import UsageError
from methods.lora.method import LoRA

RANK, ALPHA, RATIO = 3, 5.0, 16.0
EPS = 1e-4
"""Adam's: large enough that what PiSSA's float32 start is away from the float64 one does not turn a gradient near 0."""
FAMILY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rslora": ({"scaling": "rank-stabilized"}, {"use_rslora": True}),
    "dora": ({"dora": True}, {"use_dora": True}),
    "pissa": ({"init": "pissa"}, {"init_lora_weights": "pissa"}),
    "loraplus": ({"lr_ratio": RATIO}, {}),
    "rslora-dora-pissa": (
        {"scaling": "rank-stabilized", "dora": True, "init": "pissa"},
        {"use_rslora": True, "use_dora": True, "init_lora_weights": "pissa"},
    ),
}
"""Our options, and peft's."""
TARGETS = {"qv": QV, "all-linear": ALL_LINEAR}
each = pytest.mark.parametrize("variant", FAMILY)
dora_and_pissa = pytest.mark.parametrize("variant", ["dora", "pissa", "rslora-dora-pissa"])


def options(variant: str, **more: Any) -> dict[str, Any]:
    return {"rank": RANK, "alpha": ALPHA, **FAMILY[variant][0], **more}


@torch.no_grad()
def shake(method: Method) -> None:
    generator = torch.Generator().manual_seed(7)
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.fixture
def shaken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs begin away from the start, where B = 0 or BA = B₀A₀ would hide a wrong sign or scale."""
    adapt = LoRA.adapt

    def then_shake(self: LoRA, batch: Any) -> None:
        adapt(self, batch)
        shake(self)

    with monkeypatch.context() as patch:
        patch.setattr(LoRA, "adapt", then_shake)
        yield


def plain_weights(lab: Any) -> dict[str, Tensor]:
    """Every pretrained parameter, float64, by its name without the model's prefix."""
    return {n: p.detach().double() for n, p in AutoModel.from_pretrained(lab.backbone.path).named_parameters()}


def reference(lab: Any, variant: str, target: str = "qv", dtype: torch.dtype = torch.float64, **more: Any) -> Reference:
    """peft's network; the residual of its PiSSA comes from a float32 SVD, so it is made again by numpy in float64."""
    config = peft_config(RANK, ALPHA, TARGETS[target], **FAMILY[variant][1], **more)
    made = Reference(lab.backbone.path, config, dtype)
    if "pissa" in variant:
        plain = plain_weights(lab)
        for name, module in made.model.base_model.model.named_modules():
            if hasattr(module, "get_delta_weight"):
                u, sigma, vt = np.linalg.svd(plain[f"{name}.weight"].numpy(), full_matrices=False)
                residual = (u[:, RANK:] * sigma[RANK:]) @ vt[RANK:]
                module.get_base_layer().weight.data = torch.from_numpy(residual).to(dtype)
    return made


def loraplus(reference: Reference) -> torch.optim.Optimizer:
    made = create_loraplus_optimizer(
        reference.model,
        torch.optim.AdamW,
        lr=LR,
        loraplus_lr_ratio=RATIO,
        loraplus_weight_decay=DECAY,
        weight_decay=DECAY,
        eps=EPS,
    )
    made.add_param_group({"params": [*reference.head.parameters()], "lr": LR, "weight_decay": DECAY})
    return made


@pytest.mark.usefixtures("shaken")
@each
@pytest.mark.parametrize("target", TARGETS)
def test_forward_and_one_step_equal_pefts(lab: Any, variant: str, target: str) -> None:
    """The loss before the step, every trained tensor after it, and the weights with everything merged."""
    spec = lab.spec(
        "lora",
        options=options(variant, target=target),
        head={"pooling": "mean"},
        optim={**PLAIN, "eps": EPS},
        lr=LR,
        max_steps=1,
        precision="64-true",
    )
    run, theirs = lab.run(spec), reference(lab, variant, target)
    theirs.copy_from(run.start)
    optimizer = loraplus(theirs) if variant == "loraplus" else None
    batches = batches_of(run, lab.tasks[spec.task].dataset.train, 1)
    losses = theirs.train(batches, rates=[LR], eps=EPS, optimizer=optimizer)
    assert run.losses == pytest.approx(losses, rel=0, abs=1e-6)
    copy = {n: p.detach().clone() for n, p in run.method.named_parameters() if p.requires_grad}
    names = [name for name, _ in run.method.layers()]
    assert len(names) == {"qv": 4, "all-linear": 12}[target]
    for name in names:
        layer = theirs.layer(name)
        pairs = {"factors.0": layer.lora_A["default"].weight, "factors.1": layer.lora_B["default"].weight}
        if "dora" in variant:
            pairs["magnitude"] = layer.lora_magnitude_vector["default"].weight
        for key, tensor in pairs.items():
            ours, before = copy.pop(f"backbone.{name}.{key}"), run.start[f"backbone.{name}.{key}"]
            assert torch.allclose(ours, tensor, rtol=0, atol=1e-6), f"{name}.{key}"
            assert (ours - before).abs().max() > LR / 3, "it did not move, so nothing was compared"
    assert {*copy} == {"head.weight", "head.bias"}
    assert torch.allclose(copy["head.weight"], theirs.head.weight, rtol=0, atol=1e-6)
    assert_merged_alike(lab, run.method, theirs)


def assert_merged_alike(lab: Any, method: Method, theirs: Reference) -> None:
    """Merged weights equal peft's, and ΔW is what they moved from the pretrained ones."""
    plain, merged = plain_weights(lab), theirs.model.merge_and_unload()
    deltas = {name: delta.dense() for name, delta in method.deltas()}
    for name, weight in merge(method).items():
        want = merged.get_submodule(name.removeprefix("model.")).weight
        before = plain[f"{name.removeprefix('model.')}.weight"]
        assert torch.allclose(weight, want, rtol=0, atol=1e-6), name
        assert torch.allclose(deltas[name], want - before, rtol=0, atol=1e-6), name
        assert deltas[name].abs().max() > 1e-2


def test_loraplus_moves_b_by_its_ratio(lab: Any) -> None:
    """The first step of Adam is lr·g/(|g| + eps): about lr for A's entries, ratio·lr for B's, lr for the head's."""
    spec = lab.spec("lora", options=options("loraplus", init="normal"), optim={**PLAIN, "weight_decay": 0.0}, lr=1e-3)
    run = lab.run(spec.with_(max_steps=1))
    moved = {n: float((p.detach() - run.start[n]).abs().max()) for n, p in run.method.named_parameters()}
    for name, step in moved.items():
        if name.endswith("factors.1"):
            assert step == pytest.approx(RATIO * 1e-3, rel=0.05), name
        elif name.endswith("factors.0"):
            assert step == 0, "at B = 0 A has no gradient"
        elif name.startswith("head"):
            assert step == pytest.approx(1e-3, rel=0.05), name


@dora_and_pissa
@pytest.mark.parametrize("training", [True, False])
def test_dropout_acts_where_pefts_does(lab: Any, variant: str, training: bool) -> None:
    """One layer, one mask: the same seed draws it on both sides."""
    _, method = lab.build(lab.spec("lora", options=options(variant, dropout=0.4)))
    shake(method)
    method.double().train(training)
    theirs = reference(lab, variant, lora_dropout=0.4)
    theirs.copy_from(dict(method.named_parameters()))
    x = torch.randn(6, 5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for name, layer in method.layers():
        outputs: list[Tensor] = []
        for module in (layer, theirs.layer(name).train(training)):
            torch.manual_seed(3)
            outputs.append(module(x).detach())
        assert torch.allclose(*outputs, rtol=0, atol=1e-6), name
        assert torch.equal(layer(x), layer(x)) != training


@dora_and_pissa
def test_gradients_are_pefts(lab: Any, variant: str) -> None:
    """DoRA's norm is a constant in the backward pass; the input's gradient goes through W' all the same."""
    _, method = lab.build(lab.spec("lora", options=options(variant)))
    shake(method)
    method.double()
    theirs = reference(lab, variant)
    theirs.copy_from(dict(method.named_parameters()))
    draw = torch.Generator().manual_seed(1)
    x, direction = (torch.randn(7, 32, dtype=torch.float64, generator=draw) for _ in range(2))
    for name, layer in method.layers():
        other = theirs.layer(name)
        if name.endswith("value"):
            layer.base.bias = other.get_base_layer().bias = None  # some networks have no biases
        pairs = [(layer.factors[0], other.lora_A["default"].weight), (layer.factors[1], other.lora_B["default"].weight)]
        if "dora" in variant:
            pairs.append((layer.magnitude, other.lora_magnitude_vector["default"].weight))
        inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
        ours = torch.autograd.grad((layer(inputs[0]) * direction).sum(), [inputs[0], *(a for a, _ in pairs)])
        want = torch.autograd.grad((other(inputs[1]) * direction).sum(), [inputs[1], *(b for _, b in pairs)])
        for one, two in zip([layer(x), *ours], [other(x), *want], strict=True):
            assert torch.allclose(one, two, rtol=1e-6, atol=1e-6), name
            assert one.abs().max() > 1e-2


def test_pissa_starts_from_the_principal_directions_as_pefts_does(lab: Any) -> None:
    """Up to the sign of each direction; the residual too is peft's, here in the float32 that peft demands."""
    _, method = lab.build(lab.spec("lora", options=options("pissa", target="all-linear")))
    config = peft_config(RANK, ALPHA, ALL_LINEAR, init_lora_weights="pissa")
    theirs = Reference(lab.backbone.path, config, torch.float32)
    for name, layer in method.layers():
        other, (a, b) = theirs.layer(name), layer.factors
        signs = torch.sign((a * other.lora_A["default"].weight).sum(1))
        assert torch.allclose(a, signs[:, None] * other.lora_A["default"].weight, rtol=0, atol=1e-5), name
        assert torch.allclose(b, signs * other.lora_B["default"].weight, rtol=0, atol=1e-5), name
        residual = layer.base.weight - ALPHA / RANK * layer.start_b @ layer.start_a
        assert torch.allclose(residual, other.get_base_layer().weight, rtol=0, atol=1e-5), name
        assert a.abs().max() > 0.1


def test_pissas_update_is_counted_from_the_pretrained_weight(lab: Any) -> None:
    """ΔW = s·(BA − B₀A₀): zero at the start and of rank up to 2r, which is what the record calls nominal."""
    _, method = lab.build(lab.spec("lora", options=options("pissa")))
    for _, delta in method.deltas():
        assert delta.nominal == 2 * RANK
        assert delta.singular_values().max() < 1e-5
    shake(method)
    assert all(torch.linalg.matrix_rank(d.dense().double(), rtol=1e-5) == 2 * RANK for _, d in method.deltas())
    _, wide = lab.build(lab.spec("lora", options=options("pissa", rank=20)))
    assert {delta.nominal for _, delta in wide.deltas()} == {32}, "no more than the layer has"


@dora_and_pissa
def test_an_export_needs_no_second_svd(lab: Any, variant: str) -> None:
    """It loads into a network whose start came out with other signs, as another machine's SVD may give it."""
    data, method = lab.build(lab.spec("lora", options=options(variant)))
    _, other = lab.build(lab.spec("lora", options=options(variant), seed=5))
    shake(method)
    with torch.no_grad():
        for _, layer in other.layers():
            for tensor in (layer.start_a, layer.start_b):
                if tensor is not None:
                    tensor.mul_(-1).add_(0.1)
    inputs = data.first_batch()["inputs"]
    with torch.no_grad():
        want = method.eval()(inputs)
        assert not torch.allclose(other.eval()(inputs), want, atol=1e-3)
        assert not other.load_state_dict(method.export(), strict=False).unexpected_keys
        assert torch.equal(other(inputs), want)
    for (_, ours), (_, theirs) in zip(method.deltas(), other.deltas(), strict=True):
        assert torch.equal(ours.dense(), theirs.dense())


def zero_row(lab: Any, **more: Any) -> tuple[Any, nn.Module]:
    """A DoRA layer whose weight has a row of zeros, and a magnitude of zero beside it."""
    from methods.lora.method import LoRALinear

    generator = torch.Generator().manual_seed(2)
    base = nn.Linear(6, 4)
    with torch.no_grad():
        base.weight[1] = 0
    factors = [torch.randn(2, 6, generator=generator), torch.zeros(4, 2)]
    return base, LoRALinear(base, factors, scale=2.0, dropout=0.0, offset=False, dora=True)


def test_doras_delta_is_exact_even_where_a_row_vanishes(lab: Any) -> None:
    base, layer = zero_row(lab)
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.allclose(layer(x), base(x), rtol=0, atol=1e-6), "the start is the plain layer"
        layer.factors[1].normal_(generator=torch.Generator().manual_seed(4))
        layer.magnitude[0], layer.magnitude[1] = 0.0, 0.7
        before, want = base.weight.clone(), layer(x)
        direction = before + 2 * layer.factors[1] @ layer.factors[0]
        by_hand = layer.magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)
        assert torch.allclose(want, F.linear(x, by_hand, base.bias), rtol=0, atol=1e-5)
        assert torch.allclose(layer.delta().dense(), by_hand - before, rtol=0, atol=1e-6)
    layer(x).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in (*layer.factors, layer.magnitude))


def test_a_row_of_zeros_gives_finite_gradients_at_the_start(lab: Any) -> None:
    _, layer = zero_row(lab)
    layer(torch.ones(1, 6)).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in (*layer.factors, layer.magnitude))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"init": "pissa", "rank": 33}, "singular values"),
        ({"alpha": 0.0}, r"method\.alpha=0"),
        ({"alpha": -1.0, "init": "pissa"}, r"method\.alpha=-1"),
        ({"alpha": math.nan}, r"method\.alpha=nan"),
        ({"lr_ratio": 0.0}, r"method\.lr_ratio=0"),
        ({"lr_ratio": -16.0}, r"method\.lr_ratio=-16"),
    ],
)
def test_what_makes_no_sense_is_refused(lab: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        lab.build(lab.spec("lora", options=given))
    assert caught.value.known and caught.value.todo


def biases(lab: Any, keep: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """The plain network's, but for the pooler's."""
    named = AutoModel.from_pretrained(lab.backbone.path).named_parameters()
    return {n: p for n, p in named if n.split(".")[-1] == "bias" and "pooler" not in n and keep(n)}


@pytest.mark.parametrize(
    ("target", "keep"),
    [("all", lambda name: True), ("query|intermediate", lambda name: "query" in name or "intermediate" in name)],
)
def test_bitfit_moves_biases_and_nothing_else(lab: Any, target: str, keep: Callable[[str], bool]) -> None:
    head = {"pooling": "mean"}
    run = lab.run(lab.spec("bitfit", options={"target": target}, head=head, max_steps=5))
    want = biases(lab, keep)
    assert run.result.params.trainable == sum(p.numel() for p in want.values()) + 2 * 32 + 2
    assert run.result.params.trainable == {"all": 608, "query|intermediate": 2 * (32 + 64)}[target] + 66
    plain = dict(AutoModel.from_pretrained(lab.backbone.path).named_parameters())
    now = {n.removeprefix("backbone.model."): p for n, p in run.method.named_parameters()}
    moved = {n for n, p in plain.items() if n in now and not torch.equal(p, now[n])}
    assert moved == {*want}
    assert {n for n in run.method.export() if not n.startswith("head.")} == {f"backbone.model.{n}" for n in want}
    assert not run.result.ranks


@pytest.mark.parametrize("target", ["no-such-layer", "(", "word_embeddings"])
def test_bitfit_refuses_a_target_without_biases(lab: Any, target: str) -> None:
    with pytest.raises(UsageError, match=r"method\.target") as caught:
        lab.build(lab.spec("bitfit", options={"target": target}))
    assert caught.value.known and caught.value.todo
