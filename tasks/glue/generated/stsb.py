"""Similarity of captions: the score is the weight of subject, action, object and place that they share."""

from __future__ import annotations

from tasks.glue.generated.draw import Draw, Group, Label, Pair, groups

Kind = tuple[Group, ...]


def kinds(text: str) -> tuple[Kind, ...]:
    """Return the kinds of a list: groups of synonyms, and a semicolon between kinds."""
    return tuple(groups(kind) for kind in text.split("; "))


SUBJECTS = kinds(
    "man/guy, boy/lad, grandfather; woman/lady, girl, grandmother; cook/chef, waiter, baker; "
    "worker/laborer, carpenter, plumber; soldier, policeman/officer; dancer, singer/vocalist, musician; "
    "doctor/physician, nurse, dentist"
)
ACTIONS = kinds(
    "cleaning, washing/rinsing, drying; cutting/slicing, chopping, peeling; lifting/raising, carrying, moving; "
    "buying/purchasing, selling, ordering; drawing/sketching, painting, photographing; "
    "holding, grabbing/seizing, dropping; smelling/sniffing, tasting; hiding, burying"
)
OBJECTS = kinds(
    "potato, onion, carrot, radish; apple, orange, lemon, peach; fish, crab, shrimp/prawn; pumpkin, melon; "
    "log, branch/bough, plank/board; loaf of bread, cake, cookie/biscuit; rose, tulip, daisy; rope/cord, chain, cable"
)
PLACES = kinds(
    "in the street/on the road, in the square, in the alley; in the garden/in the yard, in the park, in the orchard; "
    "in the kitchen, in the dining room, in the bedroom; on the beach/by the sea, by the river, by the lake; "
    "in the store/in the shop, at the market; in the forest/in the woods, in the jungle; "
    "on the ship/on the boat, in the harbor"
)
SLOTS = ((SUBJECTS, 1.0), (ACTIONS, 1.5), (OBJECTS, 1.5), (PLACES, 1.0))
SAME, NEAR, FAR = 1.0, 0.5, 0.0
"""Share of a slot's weight that counts: equal or synonyms; of one kind (apple and lemon); different."""


def draw_pair(draw: Draw, label: Label) -> Pair:
    """Draw two captions whose shared weights add up to `label`."""
    levels = [SAME] * len(SLOTS)
    while sum(weight * level for (_, weight), level in zip(SLOTS, levels, strict=True)) != label:
        levels = [draw.pick((SAME, NEAR, FAR)) for _ in SLOTS]
    pairs = [_slot(draw, choices, level) for (choices, _), level in zip(SLOTS, levels, strict=True)]
    first, second = zip(*pairs, strict=True)
    return _caption(draw, first), _caption(draw, second)


def _slot(draw: Draw, choices: tuple[Kind, ...], level: float) -> tuple[str, str]:
    kind = draw.pick(choices)
    group = draw.pick(kind)
    if level == SAME:
        return draw.pick(group), draw.pick(group)
    other = draw.other(kind, group) if level == NEAR else draw.pick(draw.other(choices, kind))
    return draw.pick(group), draw.pick(other)


def _caption(draw: Draw, slots: Group) -> str:
    subject, action, thing, place = slots
    core = f"{_with_article(subject)} is {action} {_with_article(thing)}"
    return draw.pick((f"{core} {place}", f"{place}, {core}"))


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
