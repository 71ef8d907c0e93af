"""Base of the adapter methods: find the blocks of a network and put a bottleneck after each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.method import Batch, Method
from bench.api.network import HasBlocks, Network
from bench.api.running_statistics import freeze_statistics
from bench.core.errors import UsageError
from methods.common.config import BottleneckConfig

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}
BlockOutput = Tensor | tuple[Tensor, ...]
"""What a block returns: hidden features, alone or first in a tuple."""


class Bottleneck(nn.Module):
    """Returns h + Up(act(Down(h))).

    Down (b, D) starts from N(0, .02²), as BERT's matrices; Up (D, b) and both biases start at zero.

    Attributes:
        dropped: returns h unchanged.
        channels: h is an image (B, D, H, W), and Down and Up are convolutions of 1×1.
    """

    def __init__(
        self, width: int, config: BottleneckConfig, generator: torch.Generator, *, channels: bool = False
    ) -> None:
        super().__init__()
        inner = config.inner_width(width)
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activation, self.dropout, self.dropped = ACTIVATIONS[config.activation], config.dropout, False
        self.channels = channels
        with torch.no_grad():
            self.down.weight.copy_(torch.randn(inner, width, generator=generator) * 0.02)
            for parameter in (self.down.bias, self.up.weight, self.up.bias):
                parameter.zero_()

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, D), or (B, D, H, W) → (B, D, H, W)."""
        if self.dropped:
            return hidden
        inner = self.activation(self._project(self.down, hidden))
        return hidden + F.dropout(self._project(self.up, inner), self.dropout, self.training)

    def _project(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return F.conv2d(x, layer.weight[:, :, None, None], layer.bias) if self.channels else layer(x)


def hidden_of(out: BlockOutput) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def _apply_adapter(block: nn.Module, args: object, out: BlockOutput) -> BlockOutput:
    """Forward hook that sends the output of a block through its adapter."""
    hidden: Tensor = block.get_submodule("adapter")(hidden_of(out))
    return (hidden, *out[1:]) if isinstance(out, tuple) else hidden


class Adapters(Method):
    """Freezes the backbone and puts a `Bottleneck` after every block from number `lowest` on."""

    @abstractmethod
    def lowest(self, blocks: int) -> int:
        """Return the number of the first block with an adapter, given how many blocks there are."""

    def adapt(self, batch: Batch) -> None:
        """Freeze the backbone and adapt its blocks; the start of an adapter does not depend on which others exist."""
        self.backbone.requires_grad_(False)
        self.blocks = find_blocks(self.backbone)
        generator = torch.Generator().manual_seed(self.seed)
        lowest = self.lowest(len(self.blocks))
        self.adapters: dict[int, Bottleneck] = {}
        for i, (block, (width, channels)) in enumerate(zip(self.blocks, self._widths(batch), strict=True)):
            adapter = Bottleneck(width, self.config, generator, channels=channels)
            if i >= lowest:
                block.adapter = self.adapters[i] = adapter
                block.register_forward_hook(_apply_adapter)  # a wrapper would hide attributes that the network reads

    def _widths(self, batch: Batch) -> list[tuple[int, bool]]:
        """Return D of every block, and whether it is the number of channels of an image, measured on one example.

        Blocks that the network does not name are equal, and their width is the network's.
        """
        if not isinstance(self.backbone, HasBlocks):
            return [(int(self.backbone.width), False)] * len(self.blocks)
        channels_last = any(getattr(module, "output_fmt", "") == "NHWC" for module in self.backbone.modules())  # timm's
        widths: dict[nn.Module, tuple[int, bool]] = {}

        def measure(block: nn.Module, args: object, out: BlockOutput) -> None:
            hidden = hidden_of(out)
            channels = hidden.ndim == 4 and not channels_last
            widths[block] = (hidden.shape[1 if channels else -1], channels)

        handles = [block.register_forward_hook(measure) for block in self.blocks]
        was_training = self.backbone.training
        with torch.no_grad():
            self.backbone.eval()(**{name: value[:1] for name, value in batch["inputs"].items()})
        self.backbone.train(was_training)
        freeze_statistics(self.backbone)
        for handle in handles:
            handle.remove()
        return [widths[block] for block in self.blocks]

    @contextmanager
    def dropping(self, n: int) -> Generator[None]:
        """Skip the adapters of the first `n` blocks inside the context."""
        for i, adapter in self.adapters.items():
            adapter.dropped = i < n
        try:
            yield
        finally:
            for adapter in self.adapters.values():
                adapter.dropped = False

    def sweep_dropped(self) -> Iterator[dict[str, int]]:
        """Yield `{"n": n}` for every n from `lowest` to L − 1, with the adapters of the first n blocks skipped."""
        for n in self.adapters:
            with self.dropping(n):
                yield {"n": n}


def find_blocks(backbone: Network) -> list[nn.Module]:
    """Return the blocks that the network names, else its transformer blocks: equal modules in one list, each with
    several linear layers.

    Raises:
        UsageError: there is no such list, or more than one.
    """
    if isinstance(backbone, HasBlocks) and (named := [*backbone.blocks]):
        return named
    stacks: dict[str, list[nn.Module]] = {}
    for name, module in backbone.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in stacks)
        if isinstance(module, nn.ModuleList | nn.Sequential) and not inside and _equal_blocks(list(module)):
            stacks[name] = list(module)
    if len(stacks) != 1:
        raise UsageError(
            "adapters need a backbone with one stack of transformer or residual blocks",
            f"stacks of equal blocks in this one: {', '.join(stacks) or 'none'}",
            "Use an encoder such as BERT, RoBERTa, DistilBERT, ViT or ResNet, or another method.",
        )
    return next(iter(stacks.values()))


def _equal_blocks(blocks: list[nn.Module]) -> bool:
    shapes = [(type(block), [p.shape for p in block.parameters()]) for block in blocks]
    linear = [sum(isinstance(m, nn.Linear) for m in block.modules()) for block in blocks]
    return bool(blocks) and min(linear) > 1 and all(shape == shapes[0] for shape in shapes)
