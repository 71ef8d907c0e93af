"""What every method promises, checked on each registered one: a new method gets these tests for its registry line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel

from bench.api.method import Method
from bench.checks import Check, checks_of
from bench.core import registry
from bench.core.errors import UsageError
from bench.training.trainer import FILE

METHODS = sorted(registry.entries("methods"))
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *[(name, {}) for name in METHODS],
    ("lora", {"target": "all-linear", "rank": 3}),
    ("lora", {"dora": True, "lr_ratio": 4.0}),
    ("lora", {"init": "pissa", "rank": 3}),
    ("deeplora", {"form": "compressed", "rank": 4}),
    ("linear", {"standardise": True}),
    ("adapter", {"bottleneck": 5, "activation": "gelu"}),
    ("adapterdrop", {"n": 1}),
    *[(name, {"rank": 3}) for name in ("lowrank", "galore", "apollo")],
    *[("peft:vera", {"r": 4}), ("peft:ia3", {"target": "all-linear"}), ("peft:oft", {"oft_block_size": 8})],
]
SEVERAL_RUNS = {"a_seed_repeats_a_run", "an_interrupted_run_resumes", "micro_batches_change_nothing"}
"""Checks that train more than once."""


def contract() -> Iterator[Any]:
    """Every check of every method; slow ones are on another than the first network, or train several runs.

    Of these the defaults are always tried, but for an interruption on texts, which tests/training/test_resume.py tries.
    """
    for name, options in OPTIONS:
        checks = checks_of(name, set={f"method.{key}": value for key, value in options.items()})
        for check in checks:
            tried = check.name == "an_interrupted_run_resumes" and check.on == "bert"
            slow = check.on != checks[0].on or (check.name in SEVERAL_RUNS and (bool(options) or tried))
            words = [name, *map(str, options.values()), check.name, check.on]
            yield pytest.param(check, id="-".join(words), marks=[pytest.mark.slow] * slow)


ON_TEXT = [name for name in METHODS if "text" in registry.load_config("methods", name).needs]


@pytest.mark.parametrize("check", contract())
def test_it_keeps_the_contract(check: Check) -> None:
    check()


QV, ALL_LINEAR = [(32, 32)] * 4, [*[(32, 32)] * 4, (64, 32), (32, 64)] * 2
"""Shapes (m, n) of the small BERT's layers: two blocks of width 32 with 64 neurons inside."""
COUNTS: list[tuple[str, dict[str, Any], int]] = [
    ("lora", {}, sum(8 * (m + n) for m, n in QV)),
    ("lora", {"rank": 3, "target": "all-linear", "dora": True}, sum(3 * (m + n) + m for m, n in ALL_LINEAR)),
    ("deeplora", {"rank": 4, "depth": 5}, sum(4 * (m + n) + 3 * 16 for m, n in QV)),
    ("deeplora", {"form": "compressed", "rank": 4}, sum(4 * (m + n) + 3 * 16 for m, n in QV)),
    ("adalora", {}, sum(12 * (m + n + 1) for m, n in QV)),
    ("adapter", {"bottleneck": 5}, 2 * (2 * 32 * 5 + 5 + 32)),
    ("adapterdrop", {"bottleneck": 5, "n": 1}, 2 * 32 * 5 + 5 + 32),
    ("bitfit", {}, 2 * (4 * 32 + 64 + 32 + 2 * 32) + 2 * 32),
    ("linear", {}, 0),
    ("peft:vera", {"r": 4}, sum(4 + m for m, _ in QV)),
    ("peft:ia3", {"target": "all-linear"}, sum(n if (m, n) == (32, 64) else m for m, n in ALL_LINEAR)),
    ("peft:oft", {"oft_block_size": 8}, sum(n // 8 * 8 * 7 // 2 for _, n in QV)),
]


@pytest.mark.parametrize(("name", "options", "count"), COUNTS)
def test_what_trains_beside_the_head_is_what_the_papers_say(
    lab: Any, name: str, options: dict[str, Any], count: int
) -> None:
    _, method = lab.build(lab.spec(name, options=options))
    network, head = method.parameter_counts(), 2 * 32 + 2
    assert network["trainable"] == count + head == (method.expected_parameters() or count) + head
    backbone = AutoModel.from_pretrained(lab.backbone.path).num_parameters()
    assert network["total"] == backbone + head + count * (name != "bitfit")


@pytest.mark.parametrize(
    ("name", "options", "frozen"), [("lora", {"init": "pissa"}, 8 * 64 * 4), ("peft:vera", {"r": 4}, 4 * 64)]
)
def test_stored_bytes_are_those_of_what_a_run_keeps(lab: Any, name: str, options: dict[str, Any], frozen: int) -> None:
    run = lab.run(lab.spec(name, options=options, runtime={"save": "all"}, max_steps=2))
    assert run.result.params.stored_bytes == 4 * (run.result.params.trainable + frozen)
    assert (run.directory / FILE).stat().st_size > run.result.params.stored_bytes


@torch.no_grad()
def logits(method: Method, batch: dict[str, Any]) -> Tensor:
    method.eval()
    return method(batch["inputs"])


def everything(data: Any) -> dict[str, Any]:
    """The dev split as one batch."""
    tokens = data.evaluation["dev"]
    return data.collate(tokens, torch.arange(len(tokens.labels)).numpy())


WHOLE = {"full", "galore", "apollo", "lowrank", "dropout"}
"""Methods that train the whole network."""


@pytest.mark.parametrize("name", [n for n in ON_TEXT if n != "linear"])
def test_the_adapter_learns_under_a_frozen_head(lab: Any, name: str) -> None:
    spec = lab.spec(name, head={"trainable": False})
    run, (data, fresh) = lab.run(spec), lab.build(spec)
    assert torch.equal(run.method.head.weight, run.start["head.weight"])
    assert run.result.params.head == 0
    batch = data.collate(data.train, torch.arange(34).numpy())
    with torch.no_grad():
        assert float(run.method.eval().loss(batch)) < float(fresh.eval().loss(batch)) - 2e-4


def test_convolutions_add_up_in_one_order_while_a_run_lasts(lab: Any) -> None:
    cudnn, seen = torch.backends.cudnn, list[bool]()
    before = cudnn.deterministic
    lab.run(lab.spec("lora", max_steps=2), on_step=lambda step: seen.append(cudnn.deterministic))
    assert seen == [True, True]
    assert cudnn.deterministic is before is False


NO_ADAPTER = {*WHOLE, "linear", "bitfit", "mlm"}
"""Methods that insert nothing on which dropout could act."""
DROPOUT = [(name, place) for name in ON_TEXT if name != "dropout" for place in ("head", "backbone", "options")]
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
