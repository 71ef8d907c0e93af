"""AdaLoRA against `peft`: the same budget, masks and losses at every step, and a bare loop that is not Lightning's.

peft's own model adds its own penalty, its allocator is called where its documentation says: after the optimiser's step
and before the gradients are dropped. Everything is float64, for near-ties of scores flip masks in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import AdaLoraConfig, get_peft_model
from peft.tuners.adalora.layer import RankAllocator
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from bench.core.errors import UsageError
from bench.records.data import Example
from bench.training.trainer import FILE
from methods.adalora.method import AdaLoRA, BudgetSchedule, Importance, select_triplets

STEPS, LR, WARM = 100, 2e-3, 6
Course = list[dict[str, list[bool]]]


class Network(nn.Module):
    """Encoder, mean pooling and head; the output has a `loss`, to which peft adds its penalty."""

    def __init__(self, folder: Path, start: dict[str, Tensor]) -> None:
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.encoder = AutoModel.from_pretrained(folder).double().eval()
        self.head = nn.Linear(32, 2, dtype=torch.float64)
        self.head.load_state_dict({n: start[f"head.{n}"].double() for n in ("weight", "bias")})

    def forward(self, rows: Sequence[Example]) -> SimpleNamespace:
        inputs = self.tokenizer([row.text for row in rows], padding=True, return_tensors="pt")
        features = self.encoder(**inputs).last_hidden_state
        means = [one[keep.bool()].mean(0) for one, keep in zip(features, inputs["attention_mask"], strict=True)]
        loss = F.cross_entropy(self.head(torch.stack(means)), torch.tensor([int(row.label) for row in rows]))
        return SimpleNamespace(loss=loss.clone(), fit=loss.item())


def reference(folder: Path, run: Any, config: AdaLoraConfig) -> tuple[Any, list[tuple[str, Any]]]:
    """peft's model with A, E, B and head as they were at the start of our run; its layers by our names."""
    model = get_peft_model(Network(folder, run.start), config).double().eval()
    model.base_model.model.head.requires_grad_(True)
    layers = [
        (n, model.base_model.model.encoder.get_submodule(n.removeprefix("model."))) for n, _ in run.method.deltas()
    ]
    with torch.no_grad():
        for name, layer in layers:
            # declared frozen; casting it to the base's float64 makes peft 0.21 register it anew, as a trained parameter
            layer.ranknum["default"].requires_grad_(False)
            for i, part in enumerate((layer.lora_A, layer.lora_E, layer.lora_B)):
                part["default"].copy_(run.start[f"backbone.{name}.factors.{i}"])
    return model, layers


def pefts_training(
    model: Any, layers: Sequence[tuple[str, Any]], batches: Sequence[Sequence[Example]], *, clip: float, steps: int
) -> tuple[list[float], Course]:
    """Losses without the penalty, and which triplets the allocator left after each step."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, eps=1e-8, weight_decay=0.0)
    losses: list[float] = []
    course: Course = []
    for step, rows in enumerate(batches):
        optimizer.param_groups[0]["lr"] = LR * min((step + 1) / WARM, (steps - step) / (steps - WARM))
        out = model.base_model(rows)  # not model(rows): without a task type that goes round the penalty
        out.loss.backward()
        nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        model.base_model.update_and_allocate(step + 1)
        optimizer.zero_grad()
        losses.append(out.fit)
        course.append({name: (layer.lora_E["default"] != 0).view(-1).tolist() for name, layer in layers})
    return losses, course


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> Course:
    """Which of our triplets have E ≠ 0 after every step."""
    course: Course = []
    allocate = AdaLoRA.allocate

    def spy(self: AdaLoRA, step: int) -> None:
        allocate(self, step)
        assert step == len(course) + 1, "once per optimiser step"
        course.append({name: (layer.factors[1] != 0).view(-1).tolist() for name, layer in self.layers()})

    monkeypatch.setattr(AdaLoRA, "allocate", spy)
    return course


@pytest.mark.parametrize(
    ("options", "clip"),
    [
        ({"rank": 4, "tinit": 0.1, "tfinal": 0.3, "alpha": 16.0, "gamma": 0.5}, 0.2),
        ({"rank": 1, "init_rank": 3, "tinit": 0, "tfinal": 0, "delta_t": 7, "beta1": 0.6, "beta2": 0.9}, 1.0),
    ],
    ids=["shares", "steps"],
)
def test_a_hundred_steps_equal_pefts(lab: Any, masks: Course, options: dict[str, Any], clip: float) -> None:
    spec = lab.spec(
        "adalora",
        options=options,
        head={"pooling": "mean"},
        optim={"warmup": WARM / STEPS, "clip": clip},
        lr=LR,
        precision="64-true",
        max_steps=STEPS,
    )
    run = lab.run(spec)
    ours = run.method.config
    tinit, tfinal = (int(share * STEPS) if share < 1 else int(share) for share in (ours.tinit, ours.tfinal))
    config = AdaLoraConfig(
        target_r=ours.rank,
        init_r=ours.init_rank or int(1.5 * ours.rank),
        lora_alpha=ours.alpha,
        tinit=tinit,
        tfinal=tfinal,
        deltaT=int(ours.delta_t),
        beta1=ours.beta1,
        beta2=ours.beta2,
        orth_reg_weight=ours.gamma,
        total_step=STEPS,
        target_modules=["query", "value"],
    )
    model, layers = reference(lab.backbone.path, run, config)
    dataset = lab.tasks[spec.task].dataset
    batches = [[dataset.train[i] for i in run.data.batches[step]] for step in range(STEPS)]
    losses, course = pefts_training(model, layers, batches, clip=clip, steps=STEPS)

    assert run.losses == pytest.approx(losses, rel=1e-5)
    assert masks == course
    kept = [sum(map(sum, step.values())) for step in masks]
    assert (kept[0], kept[-1]) == (len(layers) * config.init_r, len(layers) * ours.rank)
    assert len({str(step) for step in masks}) > 5, "the masks must move"
    allocator = model.base_model.rankallocator
    assert [run.method.schedule.budget(t) for t in range(1, STEPS + 1)] == [
        allocator.budget_schedule(t)[0] for t in range(1, STEPS + 1)
    ]
    assert [r.nominal for r in run.result.ranks] == [sum(masks[-1][name]) for name, _ in layers]
    moved = 0.0
    for (_, delta), (name, layer) in zip(run.method.deltas(), layers, strict=True):
        theirs = layer.get_delta_weight("default").detach()
        assert torch.allclose(delta.dense(), theirs, rtol=0, atol=1e-8), name
        moved = max(moved, float(theirs.abs().max()))
    assert moved > 1e-2, "nothing was learned, so nothing was compared"


@pytest.mark.parametrize("total", [1, 7, 100, 6700])
@pytest.mark.parametrize(("begins", "after"), [(0, 0), (0.15, 0.5), (0.4, 0.1)])
@pytest.mark.parametrize("every", [1, 10])
def test_the_budget_is_pefts_at_every_step(total: int, begins: float, after: float, every: int) -> None:
    before, last = int(begins * total), total - int(after * total)
    schedule = BudgetSchedule(initial=144, target=96, begins=before, ends=last, every=every)
    config = AdaLoraConfig(target_r=8, init_r=12, tinit=before, tfinal=total - last, deltaT=every, total_step=total)
    names = [(f"layer{i}.lora_A.default", torch.zeros(12, 1)) for i in range(12)]
    allocator = RankAllocator(SimpleNamespace(named_parameters=lambda: names), config, "default")
    for step in range(1, total + 1):
        budget, masking = allocator.budget_schedule(step)
        assert schedule.budget(step) == budget
        if step < last:
            assert schedule.selects(step) == masking
    assert schedule.selects(last) and schedule.budget(last) == 96
    assert not any(schedule.selects(step) for step in range(last + 1, total + 1))
    course = schedule.course()
    assert course[-1] == {"step": last, "budget": 96} and len(course) <= 42
    assert all(point["budget"] == allocator.budget_schedule(point["step"])[0] for point in course)


@pytest.mark.parametrize("drop", [0, 1, 3, 5, 6])
def test_triplets_that_tie_with_the_threshold_go_as_in_peft(drop: int) -> None:
    scores = [torch.tensor([3.0, 1.0, 1.0]), torch.tensor([1.0, 0.0, 2.0])]
    everything = torch.cat(scores)
    threshold = sorted(everything.tolist())[drop - 1] if drop else -1.0
    assert [mask.tolist() for mask in select_triplets(scores, drop)] == [
        [v > threshold for v in s.tolist()] for s in scores
    ]


def test_micro_batches_allocate_once_per_step(lab: Any, masks: Course) -> None:
    courses = []
    for micro in (0, 4):
        masks.clear()
        lab.run(lab.spec("adalora", max_steps=8, precision="64-true", runtime={"micro_batch": micro}))
        courses.append([*masks])
    assert courses[0] == courses[1]
    assert [sum(map(sum, step.values())) for step in courses[0]] == [48, 36, 32, 32, 32, 32, 32, 32]


def test_scores_survive_an_interruption_while_the_budget_falls(lab: Any, masks: Course) -> None:
    spec = lab.spec("adalora", options={"tinit": 0, "tfinal": 0}, max_steps=10, runtime={"checkpoint_s": 0})
    whole, wanted = lab.run(spec), [*masks]
    masks.clear()

    def stop(step: int) -> None:
        if step == 5:
            raise InterruptedError

    folder = lab.folder()
    with pytest.raises(InterruptedError):
        lab.run(spec, folder, stop)
    del masks[4:]  # the last checkpoint is that of step 4
    again = lab.run(spec, folder)
    assert again.result.cost.resumed_at == (4,)
    assert masks == wanted and len({str(step) for step in wanted[4:]}) > 1
    state = again.method.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in whole.method.state_dict().items())


def test_a_gradient_that_overflowed_changes_no_score() -> None:
    weight = nn.Parameter(torch.tensor([2.0, -3.0]))
    importance = Importance(weight.detach())
    for gradient in ([0.5, 1.0], [float("inf"), 1.0], [float("nan"), 1.0], [1.0, 0.0]):
        weight.grad = torch.tensor(gradient)
        with torch.no_grad():
            importance.update(weight, 0.5, 0.75)
    # I = (1, 3), then (2, 0), by hand
    assert importance.mean.tolist() == pytest.approx([1.25, 0.75])
    assert importance.spread.tolist() == pytest.approx([0.75 * 0.125 + 0.25 * 0.75, 0.75 * 0.375 + 0.25 * 0.75])


def test_a_layer_may_lose_its_whole_rank(lab: Any) -> None:
    """Its ΔW is zero, its ranks are 0 and it is not said to have barely moved; what was kept is in the adapter."""
    options = {"rank": 1, "init_rank": 4, "delta_t": 1, "tinit": 0, "tfinal": 0.2}
    run = lab.run(lab.spec("adalora", options=options, max_steps=30, runtime={"save": "all"}))
    assert sum(r.nominal for r in run.result.ranks) == 4
    empty = [r for r in run.result.ranks if r.nominal == 0]
    assert empty, "the budget of this run must leave a layer without rank"
    for ranks in empty:
        assert [ranks.stable, ranks.effective, ranks.energy90, ranks.norm] == [0, 0, 0, 0]
    assert not run.result.warnings
    _, fresh = lab.build(lab.spec("adalora", options=options, seed=5))
    fresh.load_state_dict(load_file(run.directory / FILE), strict=False)
    assert tuple(delta.ranks(name) for name, delta in fresh.deltas()) == run.result.ranks
    assert run.result.report == {
        "budget": {"initial": 16, "target": 4, "begins": 0, "ends": 24, "every": 1},
        "course": run.method.schedule.course(),
    }


@pytest.mark.parametrize("options", [{"tinit": 0.5, "tfinal": 0.5}, {"tinit": 15, "tfinal": 5}, {"tfinal": 20}])
def test_a_schedule_without_room_is_refused(lab: Any, options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="no step left to reduce its budget"):
        lab.run(lab.spec("adalora", options=options))


@pytest.mark.parametrize("options", [{"init_rank": 7}, {"beta1": 1.0}, {"gamma": -1.0}, {"delta_t": -1.0}])
def test_options_out_of_range_are_refused(lab: Any, options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=rf"method\.{next(iter(options))}"):
        lab.build(lab.spec("adalora", options=options))
