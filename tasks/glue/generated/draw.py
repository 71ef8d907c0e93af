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
        """Draw a whole number in 0..n-1."""
        return int(self._random.random() * n)

    def chance(self, p: float) -> bool:
        """Return True with probability `p`."""
        return self._random.random() < p

    def pick(self, items: Sequence[T]) -> T:
        """Draw one of `items`."""
        return items[self.below(len(items))]

    def several(self, items: Sequence[T], k: int) -> list[T]:
        """Draw `k` items without replacement, in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(k)]

    def other(self, items: Sequence[T], than: T) -> T:
        """Draw one of `items` that is not `than`."""
        return self.pick([item for item in items if item != than])

    def weighted(self, items: Sequence[tuple[T, float]]) -> T:
        """Draw from pairs of item and weight."""
        point = self._random.random() * sum(weight for _, weight in items)
        for item, weight in items:
            point -= weight
            if point < 0:
                return item
        return items[-1][0]


def sentence(text: str, end: str = ".") -> str:
    """Return `text` with a capital and a full stop."""
    return text[0].upper() + text[1:] + end


def a(noun: str) -> str:
    """Return `noun` with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def draw_examples(
    draw: Draw,
    draw_pair: Callable[[Draw, Label], Pair],
    *,
    shares: Sequence[tuple[Label, float]],
    size: int,
    used: set[Pair],
) -> list[Example]:
    """Draw `size` new examples with exactly the given label shares, in random order.

    Args:
        draw: the stream of choices.
        draw_pair: draws one input with the wanted label.
        shares: `(label, share)`; the first label takes what rounding leaves.
        size: how many examples.
        used: inputs of this split or another, which are added here. No input appears twice, so no input can have two
            labels and no split can leak into another.
    """
    counts = [round(share * size) for _, share in shares]
    counts[0] += size - sum(counts)
    labels = [label for (label, _), count in zip(shares, counts, strict=True) for _ in range(count)]
    examples: list[Example] = []
    for label in draw.several(labels, size):
        pair = draw_pair(draw, label)
        while pair in used or pair[0] == pair[1]:
            pair = draw_pair(draw, label)
        used.add(pair)
        examples.append(Example(*pair, label))
    return examples
