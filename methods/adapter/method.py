"""Bottleneck adapters: two thin layers with a residual connection after every block."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.method import Batch, Method
from bench.api.network import HasBlocks, Network, channel_axes, find_stacks
from bench.api.running_statistics import freeze_statistics
from bench.core.errors import UsageError
from methods.adapter.config import AdapterConfig
from methods.common.config import BottleneckConfig

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}
BlockOutput = Tensor | tuple[Tensor, ...] | list[Tensor]
"""What a block returns: hidden features, alone or first in a tuple; CrossViT's give a list of two branches."""


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
        inner = config.bottleneck or max(1, round(width / config.reduction))
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
    """Return the hidden features in the output of a block.

    Raises:
        UsageError: the block has several outputs side by side.
    """
    hidden = out[0] if isinstance(out, tuple) else out
    if isinstance(hidden, list):
        raise UsageError(
            "adapters need blocks with one output",
            f"those of this network give {len(hidden)} side by side",
            "Choose another backbone, or another method.",
        )
    return hidden


def _apply_adapter(block: nn.Module, args: object, out: BlockOutput) -> BlockOutput:
    """Forward hook that sends the output of a block through its adapter."""
    hidden: Tensor = block.get_submodule("adapter")(hidden_of(out))
    return (hidden, *out[1:]) if isinstance(out, tuple) else hidden


class Adapter(Method):
    """Adds a bottleneck after every block (see `AdapterConfig`)."""

    Config = AdapterConfig
    bottlenecks = True

    def lowest(self, blocks: int) -> int:
        """Return the number of the first of `blocks` blocks that gets an adapter."""
        return 0

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

    def expected_parameters(self) -> int | None:
        sizes = [adapter.down.weight.shape for adapter in self.adapters.values()]
        return sum(2 * width * inner + inner + width for inner, width in sizes)

    def _widths(self, batch: Batch) -> list[tuple[int, bool]]:
        """Return D of every block, and whether it is the number of channels of an image (B, D, H, W).

        Blocks that the network does not name are equal, and their width is the network's.

        Raises:
            UsageError: the network does not say which axis of a block's output has the channels.
        """
        if not isinstance(self.backbone, HasBlocks):
            return [(int(self.backbone.width), False)] * len(self.blocks)
        inputs = {name: value[:1] for name, value in batch["inputs"].items()}
        shapes = self._output_shapes(inputs)
        larger = shapes
        if any(len(shape) == 4 for shape in shapes):
            with suppress(RuntimeError, AssertionError, ValueError):  # of a network for images of one size
                larger = self._output_shapes({name: F.interpolate(x, scale_factor=2) for name, x in inputs.items()})
        last = any(getattr(module, "output_fmt", "") == "NHWC" for module in self.backbone.modules())  # timm's
        axes = [_channel_axis(*one, last=last) for one in zip(self.blocks, shapes, larger, strict=True)]
        return [(shape[axis], axis == 1) for axis, shape in zip(axes, shapes, strict=True)]

    def _output_shapes(self, inputs: dict[str, Tensor]) -> list[torch.Size]:
        """Return the shape of every block's output, in evaluation mode."""
        shapes: dict[nn.Module, torch.Size] = {}

        def measure(block: nn.Module, args: object, out: BlockOutput) -> None:
            shapes[block] = hidden_of(out).shape

        was_training = self.backbone.training
        with ExitStack() as hooks, torch.no_grad():
            for block in self.blocks:
                hooks.enter_context(block.register_forward_hook(measure))
            try:
                self.backbone.eval()(**inputs)
            finally:
                self.backbone.train(was_training)
                freeze_statistics(self.backbone)
        return [shapes[block] for block in self.blocks]

    def merged(self) -> Network:
        raise UsageError(
            "bottleneck adapters cannot be merged",
            "each is a nonlinear layer between two blocks, and no weight of the backbone computes it",
            "Use `bench export RUN --adapter DIR`, which brings a loader along.",
        )

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

    def sweep(self) -> Iterator[dict[str, int]]:
        """With method.sweep, skip the first n adapters, for every n from `lowest` to L − 1."""
        for n in self.adapters if self.config.sweep else ():
            with self.dropping(n):
                yield {"n": n}


def _channel_axis(block: nn.Module, shape: torch.Size, larger: torch.Size, *, last: bool) -> int:
    """Return the axis of the channels in a block's output: 1 or −1.

    It is the one that does not grow with the image; where neither does, the one as long as a vector of the block.

    Args:
        block: a norm or a bias in it has as many numbers as there are channels.
        shape: of its output.
        larger: the same for an image of twice the size, where the network takes one.
        last: the network says that its channels are last; asked only if nothing else decides.

    Raises:
        UsageError: nothing decides.
    """
    if len(shape) != 4:
        return -1
    fixed = [axis for axis in (1, -1) if larger[axis] == shape[axis]]
    if len(fixed) != 1:
        fixed = channel_axes(block, shape)
    if len(fixed) != 1 and last:
        return -1
    if len(fixed) != 1:
        raise UsageError(
            f"adapters cannot tell the channels of {type(block).__name__} from height and width",
            f"it gives {' × '.join(map(str, shape))}",
            "Give the images another size, choose another backbone, or another method.",
        )
    return fixed[0]


def find_blocks(backbone: Network) -> list[nn.Module]:
    """Return the blocks of a network that has one stack of them.

    Raises:
        UsageError: there is no stack, or more than one.
    """
    stacks = find_stacks(backbone)
    if len(stacks) != 1:
        raise UsageError(
            "adapters need a backbone with one stack of transformer or residual blocks",
            f"stacks of equal blocks in this one: {', '.join(stacks) or 'none'}",
            "Use an encoder such as BERT, RoBERTa, DistilBERT, ViT or ResNet, or another method.",
        )
    return next(iter(stacks.values()))
