"""The frozen prefix of AdapterDrop, computed once per example: the same weights, and nothing computed twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_reference import NETWORKS, D, L, deep_bert, plain
from torch import Tensor, nn
from transformers import (
    AutoModel,
)

from methods.adapter.method import Adapter, find_blocks
from methods.adapterdrop.prefix_cache import PrefixCache


@pytest.fixture(scope="module")
def deep(tiny_bert: Path, make_lab: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A lab on that BERT."""
    return make_lab(backbone=deep_bert(tiny_bert, tmp_path_factory.mktemp("deep") / "deep-bert"))


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
    adapt = Adapter.adapt

    def marking(self: Any, batch: Any) -> None:
        adapt(self, batch)
        self.blocks[0].attention.first = True

    monkeypatch.setattr(Adapter, "adapt", marking)
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
    assert runs[0].result.metrics == runs[1].result.metrics
    moved = runs[0].method.state_dict()[f"backbone.model.encoder.layer.{L - 1}.adapter.up.weight"]
    assert moved.abs().max() > 1e-2
    assert counts[0] == 34 + 32, "every example once, and the first 32 once more in training mode"
    assert counts[1] >= 102


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_cache_changes_no_weight_in_single_precision(deep: Any, dropout: float) -> None:
    one, other = (deep.run(cached(deep, 2, cache=cache, options={"dropout": dropout})) for cache in (True, False))
    assert one.result.cost.cache_bytes > 0
    assert same(one, other, 1e-6)


@pytest.mark.parametrize("n", [1, 3])
def test_rows_are_what_the_plain_blocks_give_each_example_alone(deep: Any, monkeypatch: Any, n: int) -> None:
    rows: dict[int, Tensor] = {}
    clear = PrefixCache.clear
    monkeypatch.setattr(PrefixCache, "clear", lambda self: (rows.update(self.rows), clear(self)))
    run = deep.run(cached(deep, n, precision="64-true"))
    model = AutoModel.from_pretrained(deep.backbone.path).double().eval()
    model.encoder.layer, model.pooler = model.encoder.layer[:n], nn.Identity()
    assert sorted(rows) == [*range(34)] and run.method.prefix.rows == {}
    for index, row in rows.items():
        alone = run.data.collate(run.data.train, np.array([index]))
        with torch.no_grad():
            assert torch.allclose(row, plain(model, alone["inputs"], {})[0], rtol=0, atol=1e-12)
    numbers = (
        sum(len(run.data.tokenizer(text)["input_ids"]) for text, *_ in deep.tasks["toy/classes"].dataset.train) * D
    )
    assert run.result.cost.cache_bytes == 8 * numbers


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
    assert resumed.result.cost.resumed_at == (5,)
    assert resumed.result.cost.cache_bytes == whole.result.cost.cache_bytes > 0
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
    assert run.result.cost.cache_bytes == 0
    assert ([w for w in run.result.warnings if "not cached" in w] != []) == (said is not None)
    assert said is None or any(said in w for w in run.result.warnings)
    plainly = deep.run(cached(deep, n, cache=False, **changes))
    assert not [w for w in plainly.result.warnings if "cache" in w]
    assert run.losses == plainly.losses and same(run, plainly, 0.0), "no random number was used up"


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_may_replay_its_first_blocks(name: str, n: int) -> None:
    torch.manual_seed(3)
    network = NETWORKS[name]().eval()
    tokens = torch.randint(5, 20, (2, 7))
    inputs: Any = torch.randn(2, 3, 16, 16) if name == "vit" else torch.randn(2, 7, D) if name == "tuples" else tokens
    key = {"vit": "x", "tuples": "x"}.get(name, "input_ids")
    prefix = PrefixCache(network, find_blocks(network), n)
    with torch.no_grad():
        want = network(inputs)
        hidden = prefix._run({key: inputs}, training=False)
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
        data.batches_taken = done
        lists.append([*data.one_pass(size=10)])
    assert [len(batch["index"]) for batch in lists[0]] == [10, 10, 10, 4]
    for one, other in zip(*lists, strict=True):
        assert torch.equal(one["index"], other["index"])
        assert torch.equal(one["inputs"]["input_ids"], other["inputs"]["input_ids"])
    assert sorted(i for batch in lists[0] for i in batch["index"].tolist()) == [*range(34)]
    lengths = [n for batch in lists[0] for n in batch["inputs"]["attention_mask"].sum(1).tolist()]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[-1]
