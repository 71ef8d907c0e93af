"""Graded similarity of captions: the score counts how much of subject, action, object and place is shared."""

from __future__ import annotations

from tasks._generated.draw import Draw, Label, Pair, a, sentence
from tasks._generated.words import Group

SUBJECTS: tuple[tuple[Group, ...], ...] = (
    (("man", "guy"), ("boy", "lad")),
    (("woman", "lady"), ("girl",)),
    (("cook", "chef"), ("waiter",)),
    (("worker", "laborer"), ("carpenter",)),
)
ACTIONS: tuple[tuple[Group, ...], ...] = (
    (("cleaning",), ("washing", "rinsing")),
    (("cutting", "chopping"), ("peeling",)),
    (("lifting", "raising"), ("carrying",)),
    (("buying", "purchasing"), ("selling",)),
    (("drawing", "sketching"), ("painting",)),
)
OBJECTS: tuple[tuple[Group, ...], ...] = (
    (("potato",), ("onion",), ("carrot",)),
    (("apple",), ("orange",), ("lemon",)),
    (("fish",), ("crab",)),
    (("pumpkin",), ("melon",)),
    (("log",), ("branch",)),
)
PLACES: tuple[tuple[Group, ...], ...] = (
    (("in the street", "on the road"), ("in the square",)),
    (("in the garden", "in the yard"), ("in the park",)),
    (("in the kitchen",), ("in the dining room",)),
    (("on the beach", "by the sea"), ("by the river",)),
)
SLOTS = ((SUBJECTS, 1.0), (ACTIONS, 1.5), (OBJECTS, 1.5), (PLACES, 1.0))
SAME, NEAR, FAR = 1.0, 0.5, 0.0
"""Share of a slot's weight that counts: the same or a synonym, of one kind (apple and lemon), unlike."""


def make(draw: Draw, label: Label) -> Pair:
    """Two captions whose shared weights, add up to `label`."""
    first, second, score = [], [], -1.0
    while score != label:
        levels = [draw.pick((SAME, NEAR, FAR)) for _ in SLOTS]
        score = sum(weight * level for (_, weight), level in zip(SLOTS, levels, strict=True))
    for (kinds, _), level in zip(SLOTS, levels, strict=True):
        one, two = _slot(draw, kinds, level)
        first.append(one)
        second.append(two)
    return _caption(draw, first), _caption(draw, second)


def _slot(draw: Draw, kinds: tuple[tuple[Group, ...], ...], level: float) -> tuple[str, str]:
    kind = draw.pick(kinds)
    group = draw.pick(kind)
    if level == SAME:
        return draw.pick(group), draw.pick(group)
    other = draw.other(kind, group) if level == NEAR else draw.pick(draw.other(kinds, kind))
    return draw.pick(group), draw.pick(other)


def _caption(draw: Draw, slots: list[str]) -> str:
    subject, action, thing, place = slots
    core = f"{a(subject)} is {action} {a(thing)}"
    return sentence(draw.pick((f"{core} {place}", f"{place}, {core}")))
