"""What a method may expect of a backbone's network: a base class for all, and protocols for what only some can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Inputs of a batch → pooled features (B, D), D = `width`: `network(**batch["inputs"])`.

    A class and no protocol, because methods also use it as the torch module that it is.
    """

    width: int
    __call__: Callable[..., Tensor]


@runtime_checkable
class HasBlocks(Protocol):
    """A network that names its blocks."""

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Transformer or residual blocks in order; empty where there is no residual stream."""
        ...


@runtime_checkable
class MakesHead(Protocol):
    """A network whose theory prescribes the head too."""

    def make_head(self, outputs: int, source: torch.Generator, /) -> nn.Linear:
        """Return the layer D → `outputs`, started from `source`."""
        ...


@runtime_checkable
class Reports(Protocol):
    """A network that adds to the record."""

    def report(self, head: nn.Module, /) -> dict[str, object]:
        """Return JSON values by name, from the trained network and its head."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIds:
    """What masking needs from a tokenizer.

    Attributes:
        mask: id of the mask token; None where there is none.
        special: ids that stand for no text: start, separator, padding, mask, unknown.
        vocabulary: ids are 0, …, vocabulary − 1, all of them known to tokenizer and embeddings.
    """

    mask: int | None
    special: tuple[int, ...]
    vocabulary: int


@runtime_checkable
class TokenNetwork(Protocol):
    """A text encoder that also gives features of tokens: `forward` is `pool` of `hidden`."""

    @property
    def tokens(self) -> TokenIds | None:
        """Special ids and vocabulary; None where no tokenizer is known."""
        ...

    def hidden(self, **inputs: Tensor) -> Tensor:
        """Ids and mask (B, T) → a feature of every token (B, T, D)."""
        ...

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Token features (B, T, D) → (B, D)."""
        ...

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings (vocabulary, E)."""
        ...


@runtime_checkable
class SavesPretrained(Protocol):
    """A network that transformers can load again."""

    def save(self, folder: Path, /) -> None:
        """Write network and tokenizer in the layout of `save_pretrained`."""
        ...


def find_stacks(network: Network) -> dict[str, list[nn.Module]]:
    """Return the blocks that a network names, as one stack, else its stacks of transformer blocks by name.

    These are lists of equal modules, each with several linear layers. Empty where there is none. Methods add modules to
    blocks, so this is asked of a network that is not yet adapted.
    """
    if isinstance(network, HasBlocks) and (named := [*network.blocks]):
        return {"blocks": named}
    stacks: dict[str, list[nn.Module]] = {}
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in stacks)
        if isinstance(module, nn.ModuleList | nn.Sequential) and not inside and _equal_blocks([*module]):
            stacks[name] = [*module]
    return stacks


def _equal_blocks(blocks: list[nn.Module]) -> bool:
    shapes = [(type(block), [p.shape for p in block.parameters()]) for block in blocks]
    linear = [sum(isinstance(m, nn.Linear) for m in block.modules()) for block in blocks]
    return bool(blocks) and min(linear) > 1 and all(shape == shapes[0] for shape in shapes)


def channel_axes(module: nn.Module, shape: Sequence[int]) -> list[int]:
    """Return those of the axes 1 and −1 of a module's output (B, ·, ·, ·) that are as long as one of its vectors.

    A norm or a bias has as many numbers as there are channels. One axis: these are the channels; else nothing is known.
    """
    sizes = {parameter.numel() for parameter in module.parameters() if parameter.ndim == 1}
    return [axis for axis in (1, -1) if shape[axis] in sizes]
