"""What the tests of GaLore and APOLLO share: gradients that depend on the weights, small networks, and checkpoints."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.api.task import TaskSpec
from bench.config.sections import HeadConfig, OptimConfig

LR, DECAY = 1e-3, 0.1
RANK, REFRESH, STEPS = 3, 20, 50
SHAPES = [(12, 7), (7, 12), (9, 9), (40, 5)]
"""Tall, wide, square and very tall."""
TASK = TaskSpec(name="toy", version=1, modality="text", num_classes=2, metrics=("accuracy",), primary=("accuracy",))
Optimizer = torch.optim.Optimizer


def weights(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def train(optimizer: Optimizer, trained: Sequence[nn.Parameter], steps: range, growth: float = 1.0) -> list[Tensor]:
    """Noise of a scale that `growth` multiplies at every step, plus a pull to zero; gives the weights after each."""
    course: list[Tensor] = []
    for step in steps:
        for number, parameter in enumerate(trained):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * step + number))
            parameter.grad = (parameter.detach() + 2 * growth**step * noise).to(parameter)
        optimizer.step()
        course.append(torch.cat([p.detach().flatten() for p in trained]))
    return course


def apart(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Largest difference of two courses."""
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def goes_on(make: Callable[[Sequence[nn.Parameter]], Optimizer], cut_at: int) -> bool:
    """Whether a run in two parts, with a checkpoint read without pickle between them, is bit for bit the whole one."""
    shapes = [*SHAPES, (6,)]
    whole, cut = weights(shapes), weights(shapes)
    train(make(whole), whole, range(STEPS))
    before, file = make(cut), io.BytesIO()
    train(before, cut, range(cut_at))
    torch.save(before.state_dict(), file)
    file.seek(0)
    again = make(cut)
    again.load_state_dict(torch.load(file, weights_only=True))
    train(again, cut, range(cut_at, STEPS))
    return all(torch.equal(a, b) for a, b in zip(whole, cut, strict=True))


class Network(nn.Module):
    """Every kind of parameter: a tied table, a convolution, attention, norms, a linear layer that is too small."""

    width = 24

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 24)
        self.position = nn.Parameter(torch.zeros(5, 24))
        self.mixer = nn.Conv1d(24, 20, 3, padding=1)
        self.wide = nn.Linear(20, 24)
        self.attention = nn.MultiheadAttention(24, 2, batch_first=True)
        self.small = nn.Linear(24, 4)
        self.back = nn.Linear(4, 24)
        self.norm = nn.LayerNorm(24)
        self.tied = nn.Linear(24, 30, bias=False)
        self.tied.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        """(B, 5) numbers of rows of the table → (B, 24)."""
        hidden = self.table(x) + self.position
        hidden = self.wide(torch.relu(self.mixer(hidden.mT).mT))
        hidden = hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0]
        hidden = self.norm(hidden + self.back(torch.relu(self.small(hidden))))
        return hidden.mean(1) + torch.tanh(self.tied(hidden)).mean((1, 2))[:, None]


def method(kind: Any, *, optim: OptimConfig | None = None, **options: Any) -> Any:
    """A method on `Network`, adapted."""
    torch.manual_seed(0)
    config, optim = kind.Config(**options), optim or OptimConfig()
    made = kind(Network(), TASK, config, head=HeadConfig(), optim=optim, lr=1e-2, seed=3)
    made.adapt({})
    return made


def batch() -> dict[str, Any]:
    x = torch.randint(30, (32, 5), generator=torch.Generator().manual_seed(1))
    return {"inputs": {"x": x}, "labels": (x.sum(1) % 2)}


def optimizer_of(made: Any) -> Optimizer:
    """What the method makes of its groups, as `Method.configure_optimizers` asks for it."""
    groups = [{**{k: v for k, v in g.items() if k != "lr_scale"}, "lr": made.lr} for g in made.param_groups()]
    return made.make_optimizer(groups)


def learn(made: Any, steps: int) -> tuple[Optimizer, list[float]]:
    """The method's optimiser after some steps on one batch, and the losses."""
    optimizer = optimizer_of(made)
    losses: list[float] = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = made.loss(batch())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return optimizer, losses


PROJECTED = {"mixer.weight", "wide.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
"""Of `Network`, those whose shorter side is longer than 4."""
SIDES = {"mixer.weight": (20, 72), "wide.weight": (24, 20), "attention.in_proj_weight": (72, 24)}
SIDES |= {"attention.out_proj.weight": (24, 24)}
