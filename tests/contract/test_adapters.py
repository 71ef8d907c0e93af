"""Adapters and AdapterDrop against a plain network with the adapters written out here, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from scipy.stats import chisquare
from sklearn.metrics import accuracy_score, matthews_corrcoef
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)

from bench.backbones import from_folder
from bench.errors import UsageError
from methods._adapters import AdapterConfig, Adapters, find_blocks
from methods._prefix import Prefix

L, D = 4, 32


@pytest.fixture(scope="module")
def deep(tiny_bert: Path, make_lab: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A lab on a BERT of four blocks, with matrices large enough for features to depend on the text."""
    folder = tmp_path_factory.mktemp("deep") / "deep-bert"
    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    sizes = {"hidden_size": D, "num_hidden_layers": L, "num_attention_heads": 2, "intermediate_size": 48}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return make_lab(backbone=from_folder("deep-bert", folder))


@torch.no_grad()
def shake(method: nn.Module) -> None:
    """Move all that trains far from its start, so that a wrong sign or place shows."""
    generator = torch.Generator().manual_seed(7)
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def weights(state: dict[str, Tensor]) -> dict[int, list[Tensor]]:
    """Down, its bias, Up, its bias of every adapted block, by their names in a state or an export."""
    prefix, parts = "backbone.model.encoder.layer", ("down.weight", "down.bias", "up.weight", "up.bias")
    there = [i for i in range(L) if f"{prefix}.{i}.adapter.up.bias" in state]
    return {i: [state[f"{prefix}.{i}.adapter.{part}"].detach().clone() for part in parts] for i in there}


def plain(
    model: Any, inputs: dict[str, Tensor], adapters: dict[int, list[Tensor]], act: Callable[[Tensor], Tensor] = F.relu
) -> Tensor:
    """Pooled features of transformers' own blocks, one after the other, with these adapters in between."""
    hidden = model.embeddings(input_ids=inputs["input_ids"], token_type_ids=inputs["token_type_ids"])
    closed = (1 - inputs["attention_mask"][:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
    for i, block in enumerate(model.encoder.layer):
        out = block(hidden, closed)
        hidden = out[0] if isinstance(out, tuple) else out
        if i in adapters:
            down, down_bias, up, up_bias = adapters[i]
            hidden = hidden + act(hidden @ down.T + down_bias) @ up.T + up_bias
    return model.pooler(hidden)


def dev_batch(data: Any) -> dict[str, Any]:
    tokens = data.evaluation["dev"]
    return data.collate(tokens, np.arange(len(tokens.labels)))


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
        draws[seed] = [method.drawn(step) for step in range(4000)]
        assert chisquare(np.bincount(draws[seed], minlength=L)).pvalue > 1e-3
        pairs = np.bincount([a * L + b for a, b in zip(draws[seed][::2], draws[seed][1::2], strict=True)])
        assert len(pairs) == L * L and chisquare(pairs).pvalue > 1e-3, "steps do not depend on each other"
    assert draws[0] != draws[1]
    _, again = deep.build(deep.spec("adapterdrop", seed=1))
    assert [again.drawn(step) for step in reversed(range(50))] == draws[1][:50][::-1]


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Every n that was really dropped, in order."""
    seen: list[int] = []
    real = Adapters.dropping
    monkeypatch.setattr(Adapters, "dropping", lambda self, n: (seen.append(n), real(self, n))[1])
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
    assert resumed.result["cost"]["resumed_at"] == [6]
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
    curve = run.result.get("sweep", [])
    assert [point["n"] for point in curve] == [*points]
    batch = dev_batch(run.data)
    outputs: list[Tensor] = []
    for point in curve:
        _, other = deep.build(deep.spec("adapter", seed=9))
        other.load_state_dict(run.method.export(), strict=False)
        with torch.no_grad():
            for i, adapter in other.adapters.items():
                if i < point["n"]:
                    adapter.up.weight.zero_(), adapter.up.bias.zero_()
            outputs.append(other.eval()(batch["inputs"]))
        guess = outputs[-1].argmax(-1)
        want = {
            "accuracy": accuracy_score(batch["labels"], guess),
            "matthews": matthews_corrcoef(batch["labels"], guess),
        }
        assert point["metrics"]["dev"] == pytest.approx(want, abs=1e-6), point["n"]
        assert point["primary"] == point["metrics"]["dev"]["accuracy"]
    if points:
        assert curve[0]["metrics"] == run.result["metrics"]["all"], "as it was trained, or with every adapter"
        assert len({point["primary"] for point in curve}) > 1, "the adapters matter, or nothing was compared"


# any stack of transformer blocks


class Tuples(nn.Module):
    """Blocks that give a tuple, as those of older transformers do."""

    def __init__(self, blocks: int, kind: Callable[..., Any] = nn.ModuleList) -> None:
        super().__init__()
        self.width = D
        self.layers = kind([self.Block() for _ in range(blocks)])

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(D, 8), nn.Linear(8, D)

        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return torch.tanh(self.other(self.one(x))), "attention"

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x, word = layer(x)
            assert word in ("attention", None)
        return x


def vit() -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": D, "depth": 3, "num_heads": 2, "num_classes": 0}
    model = timm.create_model("vit_tiny_patch16_224", **sizes)
    model.width = D
    return model


SIZES = {"vocab_size": 20, "num_attention_heads": 2, "num_hidden_layers": 3}
NETWORKS: dict[str, Callable[[], Any]] = {
    "bert": lambda: BertModel(BertConfig(hidden_size=D, intermediate_size=40, **SIZES)),
    "roberta": lambda: RobertaModel(RobertaConfig(hidden_size=D, intermediate_size=40, **SIZES)),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(vocab_size=20, dim=D, n_layers=3, n_heads=2, hidden_dim=40)),
    "vit": vit,
    "tuples": lambda: Tuples(3),
}


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
    method = _adapted(network)
    assert torch.equal(features(), start)
    with torch.no_grad():
        for adapter, v in zip(method.adapters.values(), added, strict=True):
            adapter.down.weight.zero_(), adapter.down.bias.fill_(-1.0), adapter.up.bias.copy_(v)
    assert torch.allclose(features(), want, rtol=0, atol=1e-12)
    assert (want - start).abs().max() > 0.1


def _adapted(network: nn.Module) -> Any:
    """An object with just what `adapt` needs."""

    class Host(Adapters):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.backbone, self.config, self.seed = network, AdapterConfig(), 0

        def lowest(self, blocks: int) -> int:
            return 0

    host = Host()
    host.adapt({})
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


# the frozen prefix, computed once per example


def cached(lab: Any, n: int, *, cache: bool = True, **changes: Any) -> Any:
    options = {"n": n, "cache": cache, "sweep": False, **changes.pop("options", {})}
    return lab.spec("adapterdrop", options=options, **{"max_steps": 9, "lr": 1e-2, **changes})


def same(one: Any, other: Any, tolerance: float) -> bool:
    ours, theirs = one.method.state_dict(), other.method.state_dict()
    return all(torch.allclose(ours[name], theirs[name], rtol=0, atol=tolerance) for name in theirs)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples pass through the first block's attention, call by call, in training."""
    seen: list[int] = []
    from transformers.models.bert.modeling_bert import BertAttention

    real = BertAttention.forward

    def forward(self: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        if getattr(self, "first", False):
            seen.append(len(hidden))
        return real(self, hidden, *args, **kwargs)

    monkeypatch.setattr(BertAttention, "forward", forward)
    adapt = Adapters.adapt

    def marking(self: Any, batch: Any) -> None:
        adapt(self, batch)
        self.blocks[0].attention.first = True

    monkeypatch.setattr(Adapters, "adapt", marking)
    return seen


@pytest.mark.parametrize("micro", [0, 8])
@pytest.mark.parametrize("n", [1, L - 1])
def test_the_cache_changes_no_weight_and_computes_once(deep: Any, computed: list[int], n: int, micro: int) -> None:
    runs, counts = [], []
    for cache in (True, False):
        computed.clear()
        spec = cached(deep, n, cache=cache, precision="64-true", runtime={"micro_batch": micro})
        runs.append(deep.run(spec))
        counts.append(sum(computed) - 48)  # the dev examples
    assert same(*runs, 1e-9)
    assert runs[0].losses == pytest.approx(runs[1].losses, rel=1e-9)
    assert runs[0].result["metrics"] == runs[1].result["metrics"]
    moved = runs[0].method.state_dict()[f"backbone.model.encoder.layer.{L - 1}.adapter.up.weight"]
    assert moved.abs().max() > 1e-2
    assert counts[0] == 34 + 32, "every example once, and the first 32 once more in training mode"
    assert counts[1] >= 102


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_cache_changes_no_weight_in_single_precision(deep: Any, dropout: float) -> None:
    one, other = (deep.run(cached(deep, 2, cache=cache, options={"dropout": dropout})) for cache in (True, False))
    assert one.result["cost"]["cache_bytes"] > 0
    assert same(one, other, 1e-6)


@pytest.mark.parametrize("n", [1, 3])
def test_rows_are_what_the_plain_blocks_give_each_example_alone(deep: Any, monkeypatch: Any, n: int) -> None:
    rows: dict[int, Tensor] = {}
    clear = Prefix.clear
    monkeypatch.setattr(Prefix, "clear", lambda self: (rows.update(self.rows), clear(self)))
    run = deep.run(cached(deep, n, precision="64-true"))
    model = AutoModel.from_pretrained(deep.backbone.path).double().eval()
    model.encoder.layer, model.pooler = model.encoder.layer[:n], nn.Identity()
    assert sorted(rows) == [*range(34)] and run.method.prefix.rows == {}
    for index, row in rows.items():
        alone = run.data.collate(run.data.train, np.array([index]))
        with torch.no_grad():
            assert torch.allclose(row, plain(model, alone["inputs"], {})[0], rtol=0, atol=1e-12)
    numbers = sum(len(run.data.tokenizer(text)["input_ids"]) for text, *_ in deep.tasks["toy/classes"].corpus.train) * D
    assert run.result["cost"]["cache_bytes"] == 8 * numbers


def test_an_interrupted_cached_run_goes_on_bit_for_bit(deep: Any) -> None:
    class Stop(Exception):
        pass

    def stop(step: int) -> None:
        if step == 6:
            raise Stop

    whole, folder = deep.run(cached(deep, 2)), deep.folder()
    spec = cached(deep, 2, runtime={"checkpoint_s": 0})
    with pytest.raises(Stop):
        deep.run(spec, folder, stop)
    resumed = deep.run(spec, folder)
    assert resumed.result["cost"]["resumed_at"] == [5]
    assert resumed.result["cost"]["cache_bytes"] == whole.result["cost"]["cache_bytes"] > 0
    assert resumed.losses == whole.losses[5:]
    assert same(resumed, whole, 0.0)


@pytest.mark.parametrize(
    ("n", "changes", "said"),
    [
        (2, {"backbone": {"dropout": 0.1}}, "backbone.dropout"),
        (2, {"options": {"cache_mib": 0}}, "cache_mib"),
        (2, {"max_steps": 3}, None),
        (0, {}, None),
    ],
    ids=["dropout", "memory", "one epoch", "n=0"],
)
def test_where_it_is_not_right_or_pays_nothing_is_cached(
    deep: Any, computed: list[int], n: int, changes: dict[str, Any], said: str | None
) -> None:
    run = deep.run(cached(deep, n, **changes))
    assert run.result["cost"]["cache_bytes"] == 0
    assert ([w for w in run.result["warnings"] if "not cached" in w] != []) == (said is not None)
    assert said is None or said in run.result["warnings"][0]
    plainly = deep.run(cached(deep, n, cache=False, **changes))
    assert plainly.result["warnings"] == []
    assert run.losses == plainly.losses and same(run, plainly, 0.0), "no random number was used up"


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_may_replay_its_first_blocks(name: str, n: int) -> None:
    torch.manual_seed(3)
    network = NETWORKS[name]().eval()
    tokens = torch.randint(5, 20, (2, 7))
    inputs: Any = torch.randn(2, 3, 16, 16) if name == "vit" else torch.randn(2, 7, D) if name == "tuples" else tokens
    key = {"vit": "x", "tuples": "x"}.get(name, "input_ids")
    prefix = Prefix(network, find_blocks(network), n)
    with torch.no_grad():
        want = network(inputs)
        hidden = prefix._run(network, {key: inputs})
        prefix.rows = dict(enumerate(hidden))
        calls = [0]
        for block in find_blocks(network)[:n]:
            next(m for m in block.modules() if isinstance(m, nn.Linear)).register_forward_hook(
                lambda *_: calls.__setitem__(0, calls[0] + 1)
            )
        with prefix.replaying({"index": torch.arange(2)}):
            again = network(inputs)
        assert calls == [0], "nothing below is computed"
        after = network(inputs)
        assert calls[0] >= n, "and afterwards it is again"
    for got in (again, after):
        ours, theirs = (o if isinstance(o, Tensor) else o.last_hidden_state for o in (got, want))
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_rows_are_computed_in_batches_that_depend_on_the_data_alone(deep: Any) -> None:
    """Padding and neighbours may decide a row's last digits, and an interrupted run computes its rows again."""
    lists: list[list[dict[str, Any]]] = []
    for seed, done, batch_size in ((0, 0, 16), (5, 7, 8)):
        data, _ = deep.build(deep.spec("adapterdrop", seed=seed, batch_size=batch_size))
        data.done = done
        lists.append([*data.once(size=10)])
    assert [len(batch["index"]) for batch in lists[0]] == [10, 10, 10, 4]
    for one, other in zip(*lists, strict=True):
        assert torch.equal(one["index"], other["index"])
        assert torch.equal(one["inputs"]["input_ids"], other["inputs"]["input_ids"])
    assert sorted(i for batch in lists[0] for i in batch["index"].tolist()) == [*range(34)]
    lengths = [n for batch in lists[0] for n in batch["inputs"]["attention_mask"].sum(1).tolist()]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[-1]
