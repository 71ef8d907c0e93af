"""Cache of a network's frozen, deterministic prefix: computed once per training example and kept in host memory."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bench.api.datamodule import StepDataModule
from bench.api.method import Batch, Method
from bench.api.network import Network
from bench.api.running_statistics import freeze_statistics
from methods.adapter.method import BlockOutput, hidden_of

MIB = 2**20
COMPARED = 64
"""Examples compared to detect augmentation: random mirroring changes none of them with probability 2^-64."""


class PrefixCache:
    """The output of the first n ≥ 1 blocks for every training example.

    Each example is computed in a batch that depends on the data alone, so that devices, micro batches and resumed runs
    get the same bits, and is kept without its padding.

    Attributes:
        rows: by index of the example, (its length, D), or an image's (C, H, W); empty before `fill`, and where caching
            would change the result.
    """

    def __init__(self, backbone: Network, blocks: Sequence[nn.Module], n: int) -> None:
        self.backbone, self.blocks = backbone, blocks[:n]
        self.rows: dict[int, Tensor] = {}
        self._forms: list[tuple[torch.Size, int]] = []

    @property
    def bytes(self) -> int:
        """Memory of the rows."""
        return sum(row.nbytes for row in self.rows.values())

    @torch.no_grad()
    def fill(self, method: Method, limit: int) -> str:
        """Compute at most `limit` bytes of rows if the run sees its examples more than once; return why it cannot."""
        data: StepDataModule = cast(Any, method.trainer).datamodule  # Lightning does not declare it
        if data.samples <= len(data.train.lengths):
            return ""
        if _is_augmented(data):
            return "augmentation changes the training examples at every step"
        was_training = self.backbone.training
        try:
            for batch in data.one_pass():
                inputs = method.transfer_batch_to_device(batch, method.device, 0)["inputs"]
                inputs = method.trainer.precision_plugin.convert_input(inputs)
                lengths = data.train.lengths if "attention_mask" in inputs else None  # nothing else is padded
                with method.trainer.precision_plugin.forward_context():
                    hidden = self._run(inputs, training=False)
                    if not self.rows and (needed := _bytes(hidden, lengths, len(data.train.lengths))) > limit:
                        return f"that takes {needed / MIB:,.1f} MiB, more than method.cache_mib={limit / MIB:g}"
                    if not self.rows and self._is_random(hidden, inputs):
                        return "they differ between training and evaluation mode (backbone.dropout?)"
                hidden = hidden.cpu()
                for index, row in zip(batch["index"].tolist(), hidden, strict=True):
                    self.rows[index] = row[: None if lengths is None else int(lengths[index])].clone()
        finally:
            self._set_mode(was_training)
        return ""

    def _is_random(self, hidden: Tensor, inputs: dict[str, Tensor]) -> bool:
        """Tell whether training mode gives another output than `hidden`, without touching the run's generators."""
        with torch.random.fork_rng([hidden.device] if hidden.is_cuda else []):
            return not torch.allclose(self._run(inputs, training=True), hidden, rtol=1e-4, atol=1e-4)

    def _set_mode(self, training: bool) -> None:
        self.backbone.train(training)
        freeze_statistics(self.backbone)

    def _run(self, inputs: dict[str, Tensor], *, training: bool) -> Tensor:
        """Return the output of block n, (B, T, D) or (B, C, H, W), without computing later blocks."""
        outs: list[BlockOutput] = []

        def collect(block: nn.Module, args: object, out: BlockOutput) -> None:
            outs.append(out)
            if len(outs) == len(self.blocks):
                raise _PrefixDone

        self._set_mode(training)
        with ExitStack() as stack:
            for block in self.blocks:
                stack.callback(block.register_forward_hook(collect).remove)
            with suppress(_PrefixDone):
                self.backbone(**inputs)
        self._forms = [(hidden_of(out).shape[1:], len(out) if isinstance(out, tuple) else 0) for out in outs]
        return hidden_of(outs[-1])

    @contextmanager
    def replaying(self, batch: Batch) -> Generator[None]:
        """Make the first n blocks return their cached output for this training batch inside the context.

        Only the output of block n is used. The others return it too, or zeros where their shape differs.
        """
        if not self.rows:
            yield
            return
        rows = [self.rows[index] for index in batch["index"].tolist()]
        last = pad_sequence(rows, batch_first=True).to(batch["index"].device)  # a batch is as long as its longest
        with ExitStack() as stack:
            for block, (shape, size) in zip(self.blocks, self._forms, strict=True):
                alike = shape[-1:] == last.shape[-1:] if last.ndim == 3 else shape == last.shape[1:]
                hidden = last if alike else last.new_zeros(()).expand(len(rows), *shape)
                out = (hidden, *(None for _ in range(size - 1))) if size else hidden
                block.forward = lambda *args, out=out, **kwargs: out  # hides that of the class until it is deleted
                stack.callback(delattr, block, "forward")
            yield

    def clear(self) -> None:
        self.rows = {}


class _PrefixDone(Exception):
    """Stops the forward pass after block n."""


def _is_augmented(data: StepDataModule) -> bool:
    """Tell whether step 0 changes examples; it compares many, because chance leaves some as they are."""
    index = np.arange(min(len(data.train.lengths), COMPARED))
    plain, first = (data.collate(data.train, index, step=step)["inputs"] for step in (-1, 0))
    return any(not torch.equal(tensor, plain[name]) for name, tensor in first.items())


def _bytes(hidden: Tensor, lengths: np.ndarray | None, examples: int) -> int:
    """Return the memory of the rows of all examples, from the output (B, …) for some."""
    numbers = examples * hidden[0].numel() if lengths is None else int(lengths.sum()) * hidden.shape[-1]
    return numbers * hidden.element_size()
