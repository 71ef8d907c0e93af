"""A frozen, deterministic prefix of a network: computed once per training example, kept in host memory, replayed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bench.method import Batch, Method

MIB = 2**20


class Prefix:
    """What the first n ≥ 1 blocks give for every training example.

    Each example is computed in a batch that depends on the data alone, so that devices, micro batches and resumed runs
    replay the same bits, and is kept without its padding.

    Attributes:
        rows: by index of the example, (its length, D); empty before `fill` and where replaying would not be right.
        bytes: memory that the rows take.
    """

    def __init__(self, backbone: nn.Module, blocks: Sequence[nn.Module], n: int) -> None:
        self.backbone, self.first, self.rest = backbone, blocks[:n], blocks[n:]
        self.rows: dict[int, Tensor] = {}
        self.bytes = 0
        self._others = -1

    @torch.no_grad()
    def fill(self, method: Method, limit: int) -> str:
        """Compute the rows, if the run sees its examples more than once; return what stands against it.

        Args:
            method: in training, its `trainer.datamodule` offers `train.lengths`, `samples` and `once()`.
            limit: bytes that the rows may take.
        """
        data: Any = method.trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "once"):
            return "this task's data module has no `once`"
        lengths = data.train.lengths
        needed = int(lengths.sum()) * int(self.backbone.width) * next(self.backbone.parameters()).element_size()  # type: ignore[arg-type]
        if data.samples <= len(lengths):
            return ""
        if needed > limit:
            return f"that takes {needed / MIB:,.1f} MiB, more than method.cache_mib={limit / MIB:g}"
        was_training = self.backbone.training
        try:
            for batch in data.once():
                inputs = method.transfer_batch_to_device(batch, method.device, 0)["inputs"]
                with method.trainer.precision_plugin.forward_context():
                    hidden = self._run(self.backbone.eval(), inputs)
                    if not self.rows and self._moves(hidden, inputs):
                        return "they differ between training and evaluation mode (backbone.dropout?)"
                hidden = hidden.cpu()
                for index, row in zip(batch["index"].tolist(), hidden, strict=True):
                    self.rows[index] = row[: int(lengths[index])].clone()
        finally:
            self.backbone.train(was_training)
        self.bytes = sum(row.numel() * row.element_size() for row in self.rows.values())
        return ""

    def _moves(self, hidden: Tensor, inputs: dict[str, Tensor]) -> bool:
        """Whether training mode gives something else than `hidden`; no generator of the run is touched."""
        with torch.random.fork_rng([hidden.device] if hidden.is_cuda else []):
            return not torch.allclose(self._run(self.backbone.train(), inputs), hidden, rtol=1e-4, atol=1e-4)

    def _run(self, backbone: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Output of block n (B, T, D); the later blocks pass it on, so they cost nothing."""
        seen: list[Any] = []
        handle = self.first[-1].register_forward_hook(lambda block, args, out: seen.append(out))
        try:
            with _answering(self.rest, lambda: seen[-1]):
                backbone(**inputs)
        finally:
            handle.remove()
        if isinstance(seen[0], tuple):
            hidden, *others = seen[0]
            self._others = len(others)
            return hidden
        return seen[0]

    @contextmanager
    def replaying(self, batch: Batch) -> Generator[None]:
        """Meanwhile the first n blocks give, without computing, what they gave for this training batch."""
        if not self.rows:
            yield
            return
        rows = [self.rows[index] for index in batch["index"].tolist()]
        hidden = pad_sequence(rows, batch_first=True).to(batch["index"].device)  # a batch is as long as its longest
        out = hidden if self._others < 0 else (hidden, *(None for _ in range(self._others)))
        with _answering(self.first, lambda: out):
            yield

    def clear(self) -> None:
        """Give the memory back."""
        self.rows = {}


@contextmanager
def _answering(blocks: Sequence[nn.Module], answer: Callable[[], Any]) -> Generator[None]:
    """Meanwhile calling one of `blocks` gives `answer()`."""
    with ExitStack() as stack:
        for block in blocks:
            block.forward = lambda *args, **kwargs: answer()  # hides the class's own until it is deleted
            stack.callback(delattr, block, "forward")
        yield
