"""Random choices that give the same bytes on every machine and Python version; lists of words, and those shared."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
Label = int | float
Pair = tuple[str, str | None]  # questions, and sentences without capital and full stop
Group = tuple[str, ...]


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
        return self._random.random() < p

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def several(self, items: Sequence[T], k: int) -> list[T]:
        """Draw `k` items without replacement, in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(k)]

    def other(self, items: Sequence[T], than: T) -> T:
        return self.pick([item for item in items if item != than])

    def weighted(self, items: Sequence[tuple[T, float]]) -> T:
        point = self._random.random() * sum(weight for _, weight in items)
        for item, weight in items:
            point -= weight
            if point < 0:
                return item
        return items[-1][0]


def words(text: str) -> tuple[str, ...]:
    """Return the items of a list: `car, house` is `("car", "house")`."""
    return tuple(text.split(", "))


def groups(text: str) -> tuple[Group, ...]:
    """Return the groups of a list: `car/automobile, house` is `(("car", "automobile"), ("house",))`."""
    return tuple(tuple(group.split("/")) for group in words(text))


# synonyms
PERSONS = groups(
    "doctor/physician, lawyer/attorney, teacher/instructor, writer/author, reporter/journalist, senator/lawmaker, "
    "actor, thief/robber, priest/clergyman, visitor/guest, banker/financier, sailor, judge, mayor, painter, pilot, "
    "butcher, farmer, nurse, chef"
)
# what one person did to another; the past form is also the participle
DEEDS = groups(
    "hired/recruited, fired/dismissed, praised/applauded, helped/assisted, phoned/called, warned/cautioned, "
    "saved/rescued, accused/blamed, welcomed/greeted, tricked/fooled, questioned/interrogated, attacked/assaulted, "
    "paid/compensated, followed/trailed"
)
DAYS = words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
CITIES = words("London, Paris, Boston, Berlin, Chicago, Madrid, Dublin, Sydney, Oslo, Denver")
