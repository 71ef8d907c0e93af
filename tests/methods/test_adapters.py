"""Adapters and AdapterDrop against a plain network with the adapters written out here, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapter_reference import NETWORKS, D, L, Tuples, deep_bert, dev_batch, plain, shake, weights
from scipy.stats import chisquare
from sklearn.metrics import accuracy_score, matthews_corrcoef
from torch import Tensor, nn
from transformers import (
    AutoModel,
)

from bench.core.errors import UsageError
from methods.adapter.config import AdapterConfig
from methods.adapter.method import Adapter, find_blocks


@pytest.fixture(scope="module")
def deep(tiny_bert: Path, make_lab: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A lab on that BERT."""
    return make_lab(backbone=deep_bert(tiny_bert, tmp_path_factory.mktemp("deep") / "deep-bert"))


@pytest.mark.parametrize("moved", [False, True], ids=["identity adapters", "moved adapters"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_n_dropped_is_the_plain_network_with_the_other_adapters(deep: Any, activation: str, moved: bool) -> None:
    options = {"activation": activation, "bottleneck": 3}
    data, method = deep.build(deep.spec("adapterdrop", options=options))
    method.double().eval()
    if moved:
        shake(method)
    model = AutoModel.from_pretrained(deep.backbone.path).double().eval()
    inputs, act = dev_batch(data)["inputs"], getattr(F, activation)
    seen: list[Tensor] = []
    for n in range(L):
        with method.dropping(n), torch.no_grad():
            ours = method.backbone(**inputs)
            kept = {i: w for i, w in weights(method.state_dict()).items() if i >= n} if moved else {}
            theirs = plain(model, inputs, kept, act)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12), n
        seen.append(ours)
    with torch.no_grad():
        assert torch.equal(method.backbone(**inputs), seen[0]), "what was dropped comes back"
    spread = max(float((a - b).abs().max()) for a, b in pairwise(seen))
    assert spread > 0.05 if moved else spread == 0


@pytest.mark.parametrize("n", range(L))
def test_a_fixed_n_has_no_adapters_below(deep: Any, n: int) -> None:
    data, method = deep.build(deep.spec("adapterdrop", options={"n": n}))
    _, whole = deep.build(deep.spec("adapter"))
    mine, theirs = weights(method.state_dict()), weights(whole.state_dict())
    assert [*mine] == [*range(n, L)]
    assert all(torch.equal(a, b) for i in mine for a, b in zip(mine[i], theirs[i], strict=True))
    shake(method.double().eval())
    model = AutoModel.from_pretrained(deep.backbone.path).double().eval()
    inputs = dev_batch(data)["inputs"]
    with torch.no_grad():
        want = plain(model, inputs, weights(method.state_dict()))
        assert torch.allclose(method.backbone(**inputs), want, rtol=0, atol=1e-12)


class Saved:
    """Which block's forward keeps tensors for a backward pass, and what comes out of each."""

    def __init__(self, method: Any) -> None:
        self.kept: Counter[int] = Counter()
        self.requires_grad: dict[int, bool] = {}
        self._now = -1  # the embeddings
        for i, block in enumerate(method.backbone.model.encoder.layer):
            block.register_forward_pre_hook(lambda block, args, i=i: self._enter(i))
            block.register_forward_hook(lambda block, args, out, i=i: self._leave(i, out))

    def _enter(self, i: int) -> None:
        self._now = i

    def _leave(self, i: int, out: Any) -> None:
        self.requires_grad[i] = (out[0] if isinstance(out, tuple) else out).requires_grad

    def __call__(self, tensor: Tensor) -> Tensor:
        self.kept[self._now] += 1
        return tensor


@pytest.mark.parametrize("robust", [False, True], ids=["specialised", "robust"])
@pytest.mark.parametrize("n", range(L))
def test_nothing_is_kept_for_a_gradient_below_n(deep: Any, n: int, robust: bool) -> None:
    data, method = deep.build(deep.spec("adapterdrop", options={} if robust else {"n": n}))
    saved = Saved(method)
    with method.dropping(n), torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        loss = method.loss(data.first_batch())
    assert saved.requires_grad == {i: i >= n for i in range(L)}
    assert {*saved.kept} == {*range(n, L)}, "and nothing in the embeddings"
    loss.backward()
    moved = {i for i, adapter in method.adapters.items() if adapter.up.bias.grad is not None}
    assert moved == {*range(n, L)}


def test_robust_n_is_uniform_and_a_function_of_seed_and_step(deep: Any) -> None:
    draws = {}
    for seed in (0, 1):
        _, method = deep.build(deep.spec("adapterdrop", seed=seed))
        draws[seed] = [method.draw_n(step) for step in range(4000)]
        assert chisquare(np.bincount(draws[seed], minlength=L)).pvalue > 1e-3
        pairs = np.bincount([a * L + b for a, b in zip(draws[seed][::2], draws[seed][1::2], strict=True)])
        assert len(pairs) == L * L and chisquare(pairs).pvalue > 1e-3, "steps do not depend on each other"
    assert draws[0] != draws[1]
    _, again = deep.build(deep.spec("adapterdrop", seed=1))
    assert [again.draw_n(step) for step in reversed(range(50))] == draws[1][:50][::-1]


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Every n that was really dropped, in order."""
    seen: list[int] = []
    real = Adapter.dropping
    monkeypatch.setattr(Adapter, "dropping", lambda self, n: (seen.append(n), real(self, n))[1])
    yield seen


def test_robust_n_agrees_over_micro_batches_and_after_an_interruption(deep: Any, dropped: list[int]) -> None:
    class Stop(Exception):
        pass

    def stop(step: int) -> None:
        if step == 7:
            raise Stop

    def steps(**runtime: Any) -> Any:
        return deep.spec("adapterdrop", max_steps=12, options={"sweep": False}, runtime=runtime)

    deep.run(steps())
    whole, dropped[:] = [*dropped], []
    assert len(whole) == 12 and {*whole} == {*range(L)}
    deep.run(steps(micro_batch=8))
    assert dropped == [n for n in whole for _ in range(2)]
    dropped.clear()
    folder = deep.folder()
    with pytest.raises(Stop):
        deep.run(steps(checkpoint_s=0), folder, stop)
    assert dropped == whole[:7]
    dropped.clear()
    resumed = deep.run(steps(checkpoint_s=0), folder)
    assert resumed.result.cost.resumed_at == (6,)
    assert dropped == whole[6:]


@pytest.mark.parametrize("n", [None, 0, 2], ids=["robust", "n=0", "n=2"])
def test_training_equals_a_bare_loop(deep: Any, dropped: list[int], n: int | None) -> None:
    """Ten steps with AdamW on plain tensors; a dropped adapter rests, and so do its moments and its decay."""
    lr, eps, decay = 3e-3, 1e-7, 0.02
    optim = {"schedule": "constant", "warmup": 0.0, "clip": 0.0, "eps": eps, "weight_decay": decay}
    options = {"n": n, "sweep": False}
    run = deep.run(deep.spec("adapterdrop", options=options, optim=optim, lr=lr, max_steps=10, precision="64-true"))
    model = AutoModel.from_pretrained(deep.backbone.path).double().eval().requires_grad_(False)
    adapters = {i: [w.double().requires_grad_() for w in ws] for i, ws in weights(run.start).items()}
    head = [run.start[f"head.{part}"].double().requires_grad_() for part in ("weight", "bias")]
    trained = [*head, *(w for ws in adapters.values() for w in ws)]
    optimizer = torch.optim.AdamW(trained, lr=lr, eps=eps, weight_decay=decay)
    losses: list[float] = []
    for step, k in enumerate(dropped):
        batch = run.data.collate(run.data.train, run.data.batches[step])
        optimizer.zero_grad()
        pooled = plain(model, batch["inputs"], {i: ws for i, ws in adapters.items() if i >= k})
        loss = F.cross_entropy(F.linear(pooled, *head), batch["labels"])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert len(losses) == 10
    assert run.losses == pytest.approx(losses, rel=1e-9)
    for i, found in weights(run.method.state_dict()).items():
        assert all(torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(found, adapters[i], strict=True)), i
        assert found[2].abs().max() > 1e-3


@pytest.mark.parametrize(
    ("method", "options", "points"),
    [
        ("adapterdrop", {}, range(L)),
        ("adapterdrop", {"n": 1}, range(1, L)),
        ("adapter", {"sweep": True}, range(L)),
        ("adapter", {}, []),
        ("adapterdrop", {"sweep": False}, []),
    ],
)
def test_the_sweep_is_what_zeroed_adapters_score(deep: Any, method: str, options: dict[str, Any], points: Any) -> None:
    run = deep.run(deep.spec(method, options=options, lr=1e-2))
    curve = run.result.sweep
    assert [point.n for point in curve] == [*points]
    batch = dev_batch(run.data)
    outputs: list[Tensor] = []
    for point in curve:
        _, other = deep.build(deep.spec("adapter", seed=9))
        other.load_state_dict(run.method.export(), strict=False)
        with torch.no_grad():
            for i, adapter in other.adapters.items():
                if i < point.n:
                    adapter.up.weight.zero_(), adapter.up.bias.zero_()
            outputs.append(other.eval()(batch["inputs"]))
        guess = outputs[-1].argmax(-1)
        want = {
            "accuracy": accuracy_score(batch["labels"], guess),
            "matthews": matthews_corrcoef(batch["labels"], guess),
        }
        assert point.metrics["dev"] == pytest.approx(want, abs=1e-6), point.n
        assert point.primary == point.metrics["dev"]["accuracy"]
    if points:
        assert curve[0].metrics == run.result.metrics.all, "as it was trained, or with every adapter"
        assert len({point.primary for point in curve}) > 1, "the adapters matter, or nothing was compared"


# any stack of transformer blocks


@pytest.mark.parametrize("name", NETWORKS)
def test_adapters_follow_the_blocks_of_every_network(name: str) -> None:
    """With Down at zero, an adapter adds act(0 + b)·Up: a known vector behind each of its blocks, and nowhere else."""
    torch.manual_seed(2)
    network = NETWORKS[name]().double().eval()
    network.width = D
    tokens = torch.randint(5, 20, (2, 7))
    inputs: Any = torch.randn(2, 3, 16, 16) if name == "vit" else torch.randn(2, 7, D) if name == "tuples" else tokens
    inputs = inputs.double() if inputs.is_floating_point() else inputs

    def features() -> Tensor:
        with torch.no_grad():
            out = network(inputs)
        return out if isinstance(out, Tensor) else out.last_hidden_state

    added = [torch.randn(D).double() for _ in range(3)]
    start = features()
    blocks = find_blocks(network)
    assert len(blocks) == 3
    handles = [
        block.register_forward_hook(
            lambda block, args, out, v=v: (out[0] + v, *out[1:]) if isinstance(out, tuple) else out + v
        )
        for block, v in zip(blocks, added, strict=True)
    ]
    want = features()
    for handle in handles:
        handle.remove()
    method = _adapted(network, inputs)
    assert torch.equal(features(), start)
    with torch.no_grad():
        for adapter, v in zip(method.adapters.values(), added, strict=True):
            adapter.down.weight.zero_(), adapter.down.bias.fill_(-1.0), adapter.up.bias.copy_(v)
    assert torch.allclose(features(), want, rtol=0, atol=1e-12)
    assert (want - start).abs().max() > 0.1


def _adapted(network: nn.Module, inputs: Tensor) -> Any:
    """An object with just what `adapt` needs; a network that names its blocks is looked through with `inputs`."""

    class Host(Adapter):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.backbone, self.config, self.seed = network, AdapterConfig(), 0

        def lowest(self, blocks: int) -> int:
            return 0

    host = Host()
    host.adapt({"inputs": {"x": inputs}})
    return host.double().eval()


@pytest.mark.parametrize(
    "network",
    [nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.ModuleDict({"one": Tuples(2), "other": Tuples(2)})],
    ids=["none", "two"],
)
def test_a_network_without_one_stack_of_blocks_is_refused(network: nn.Module) -> None:
    with pytest.raises(UsageError, match="one stack") as caught:
        find_blocks(network)
    assert ("none" in caught.value.known) or ("one.layers, other.layers" in caught.value.known)


def test_options_that_leave_nothing_are_refused(deep: Any) -> None:
    with pytest.raises(UsageError, match="leaves no adapter") as caught:
        deep.build(deep.spec("adapterdrop", options={"n": L}))
    assert f"{L} blocks" in caught.value.known and f"0 to {L - 1}" in caught.value.todo
    for options in ({"n": -1}, {"bottleneck": 0}, {"reduction": 0.5}, {"dropout": 1.0}):
        with pytest.raises(UsageError):
            deep.build(deep.spec("adapterdrop", options=options))


def test_dropout_acts_on_what_an_adapter_adds_in_training_alone(deep: Any) -> None:
    _, method = deep.build(deep.spec("adapter", options={"dropout": 0.5}))
    adapter, x = method.adapters[0], torch.randn(4000, 1, D).expand(-1, 8, -1)
    shake(adapter)
    with torch.no_grad():
        still, moving = adapter.eval()(x), adapter.train()(x)
        assert torch.allclose(still, x + adapter.up(F.relu(adapter.down(x))), atol=1e-6)
        kept = (moving - x).abs() > 1e-7
        assert 0.45 < float(kept.double().mean()) < 0.55
        assert torch.allclose((moving - x)[kept], 2 * (still - x)[kept], rtol=1e-4, atol=1e-5)
