"""What adapter methods share: a bottleneck after a block, and the blocks that get one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.method import Batch, Method
from bench.api.running_statistics import freeze_statistics
from bench.core.errors import UsageError
from methods.common.config import BottleneckConfig

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class Bottleneck(nn.Module):
    """h + Up(act(Down(h))): Down (b, D) from N(0, .02²), as BERT's matrices; Up (D, b) and both biases from zero.

    Attributes:
        dropped: it gives h back.
        channels: h is an image (B, D, H, W), so that Down and Up are convolutions of 1×1.
    """

    def __init__(
        self, width: int, config: BottleneckConfig, generator: torch.Generator, *, channels: bool = False
    ) -> None:
        super().__init__()
        inner = config.inner(width)
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activation, self.dropout, self.dropped = ACTIVATIONS[config.activation], config.dropout, False
        self.channels = channels
        with torch.no_grad():
            self.down.weight.copy_(torch.randn(inner, width, generator=generator) * 0.02)
            for start in (self.down.bias, self.up.weight, self.up.bias):
                start.zero_()

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, D), or (B, D, H, W) → (B, D, H, W)."""
        if self.dropped:
            return hidden
        inner = self.activation(self._project(self.down, hidden))
        return hidden + F.dropout(self._project(self.up, inner), self.dropout, self.training)

    def _project(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return F.conv2d(x, layer.weight[:, :, None, None], layer.bias) if self.channels else layer(x)


def _adapted(block: Any, args: Any, out: Any) -> Any:
    """Forward hook: a block's output, a tensor or the first of a tuple, goes through its adapter."""
    return (block.adapter(out[0]), *out[1:]) if isinstance(out, tuple) else block.adapter(out)


class Adapters(Method):
    """Freezes the backbone and puts a `Bottleneck` behind every block from number `lowest` on."""

    @abstractmethod
    def lowest(self, blocks: int) -> int:
        """Number of the first block that has an adapter.

        Args:
            blocks: how many blocks there are.
        """

    def adapt(self, batch: Batch) -> None:
        """Freeze the backbone and adapt its blocks; the adapter of block i is the same whichever others there are."""
        self.backbone.requires_grad_(False)
        self.blocks = find_blocks(self.backbone)
        generator = torch.Generator().manual_seed(self.seed)
        lowest = self.lowest(len(self.blocks))
        self.adapters: dict[int, Bottleneck] = {}
        for i, (block, (width, channels)) in enumerate(zip(self.blocks, self._widths(batch), strict=True)):
            adapter = Bottleneck(width, self.config, generator, channels=channels)
            if i >= lowest:
                block.adapter = self.adapters[i] = adapter
                block.register_forward_hook(_adapted)  # a wrapper would hide what the network reads of its blocks

    def _widths(self, batch: Batch) -> list[tuple[int, bool]]:
        """D of every block, and whether it is the number of channels of an image; seen on one example.

        A stack of equal blocks that the network does not name has the network's own width.
        """
        if not hasattr(self.backbone, "blocks"):
            return [(int(self.backbone.width), False)] * len(self.blocks)  # type: ignore[arg-type]
        last = any(getattr(module, "output_fmt", "") == "NHWC" for module in self.backbone.modules())  # timm's word
        seen: dict[nn.Module, tuple[int, bool]] = {}

        def look(block: nn.Module, args: Any, out: Any) -> None:
            hidden = out[0] if isinstance(out, tuple) else out
            channels = hidden.ndim == 4 and not last
            seen[block] = (hidden.shape[1 if channels else -1], channels)

        handles = [block.register_forward_hook(look) for block in self.blocks]
        was_training = self.backbone.training
        with torch.no_grad():
            self.backbone.eval()(**{name: value[:1] for name, value in batch["inputs"].items()})
        self.backbone.train(was_training)
        freeze_statistics(self.backbone)
        for handle in handles:
            handle.remove()
        return [seen[block] for block in self.blocks]

    @contextmanager
    def dropping(self, n: int) -> Generator[None]:
        """Meanwhile the first `n` blocks do without their adapters."""
        for i, adapter in self.adapters.items():
            adapter.dropped = i < n
        try:
            yield
        finally:
            for adapter in self.adapters.values():
                adapter.dropped = False

    def drops(self) -> Iterator[dict[str, Any]]:
        """`{"n": n}` for every n from `lowest` to L − 1, while the first n blocks do without their adapters."""
        for n in self.adapters:
            with self.dropping(n):
                yield {"n": n}


def find_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The blocks that the network names in its attribute `blocks`; else the transformer blocks: equal modules in one
    list, each with several linear layers.

    Raises:
        UsageError: there is no such list, or more than one.
    """
    if named := [*getattr(backbone, "blocks", ())]:
        return named
    found: dict[str, list[nn.Module]] = {}
    for name, module in backbone.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList | nn.Sequential) and not inside and _uniform(list(module)):
            found[name] = list(module)
    if len(found) != 1:
        raise UsageError(
            "adapters need a backbone with one stack of transformer or residual blocks",
            f"stacks of equal blocks in this one: {', '.join(found) or 'none'}",
            "Take an encoder such as BERT, RoBERTa, DistilBERT, ViT or ResNet, or another method.",
        )
    return next(iter(found.values()))


def _uniform(blocks: list[nn.Module]) -> bool:
    shapes = [(type(block), [p.shape for p in block.parameters()]) for block in blocks]
    linear = [sum(isinstance(m, nn.Linear) for m in block.modules()) for block in blocks]
    return bool(blocks) and min(linear) > 1 and all(shape == shapes[0] for shape in shapes)


__all__ = ["Adapters", "Bottleneck", "BottleneckConfig", "find_blocks"]
