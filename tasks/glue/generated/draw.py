"""Random choices that give the same bytes on every machine and Python version."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from bench.records.data import Example

T = TypeVar("T")
Label = int | float
Pair = tuple[str, str | None]


class Draw:
    """A stream of choices fixed by a text seed.

    Only `Random.random()` is used: its sequence for a text seed is guaranteed by Python, that of `choice`, `sample`
    and `shuffle` is not.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def below(self, n: int) -> int:
        """A whole number in 0..n-1."""
        return int(self._random.random() * n)

    def chance(self, p: float) -> bool:
        """True with probability `p`."""
        return self._random.random() < p

    def pick(self, items: Sequence[T]) -> T:
        """One of `items`."""
        return items[self.below(len(items))]

    def several(self, items: Sequence[T], k: int) -> list[T]:
        """`k` different places of `items`, in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(k)]

    def other(self, items: Sequence[T], than: T) -> T:
        """One of `items` that is not `than`."""
        return self.pick([item for item in items if item != than])

    def weighted(self, items: Sequence[tuple[T, float]]) -> T:
        """One of the first members of `items`, drawn by the weights beside them."""
        point = self._random.random() * sum(weight for _, weight in items)
        for item, weight in items:
            point -= weight
            if point < 0:
                return item
        return items[-1][0]


def sentence(text: str, end: str = ".") -> str:
    """`text` with a capital and a full stop."""
    return text[0].upper() + text[1:] + end


def a(noun: str) -> str:
    """`noun` with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def fill(
    draw: Draw,
    make: Callable[[Draw, Label], Pair],
    *,
    shares: Sequence[tuple[Label, float]],
    size: int,
    taken: set[Pair],
) -> list[Example]:
    """`size` new examples with exactly the given label shares, in random order.

    Args:
        draw: the stream of choices.
        make: writes one input with the wanted label.
        shares: `(label, share)`; the first label takes what rounding leaves.
        size: how many examples.
        taken: inputs that were already used, in this split or another; extended here. No input appears twice, so no
            input can carry two labels and no split can leak into another.
    """
    counts = [round(share * size) for _, share in shares]
    counts[0] += size - sum(counts)
    labels = [label for (label, _), count in zip(shares, counts, strict=True) for _ in range(count)]
    examples: list[Example] = []
    for label in draw.several(labels, size):
        pair = make(draw, label)
        while pair in taken or pair[0] == pair[1]:
            pair = make(draw, label)
        taken.add(pair)
        examples.append(Example(*pair, label))
    return examples
