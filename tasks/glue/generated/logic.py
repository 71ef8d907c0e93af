"""Entailment between two quantified sentences, decided exactly by the regions of a Venn diagram.

Sets: A (the premise's noun), B (the hypothesis's noun), P and Q (their predicates). A world says which of the regions
(in A, in B, in P, in Q) have members. A quantified sentence forbids some regions and requires a member in one set of
regions; statements are compatible when every required set keeps a region that none of them forbids.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal

Quantifier = Literal["all", "some", "no", "not all"]
Relation = Literal["equal", "sub", "super", "free"]
Region = tuple[bool, ...]
Statement = tuple[set[Region], set[Region]]

QUANTIFIERS: tuple[Quantifier, ...] = ("all", "some", "no", "not all")
DENIAL: dict[Quantifier, Quantifier] = {"all": "not all", "not all": "all", "some": "no", "no": "some"}
ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2

# whether something can be in the left set and in the right set; of two truth values, ≤ is implication
ALLOWED: dict[Relation, Callable[[bool, bool], bool]] = {
    "equal": operator.eq,
    "sub": operator.le,
    "super": operator.ge,
    "free": lambda left, right: True,
}


def _statement(quantifier: Quantifier, regions: Sequence[Region], noun: int, predicate: int) -> Statement:
    """Return the regions that it forbids, and those of which one must have members."""
    inside = {region for region in regions if region[noun] and region[predicate]}
    outside = {region for region in regions if region[noun] and not region[predicate]}
    statements: dict[Quantifier, Statement] = {
        "all": (outside, inside),
        "some": (set(), inside),
        "no": (inside, outside),
        "not all": (set(), outside),
    }
    return statements[quantifier]


def _compatible(first: Statement, second: Statement) -> bool:
    forbidden = first[0] | second[0]
    return bool(first[1] - forbidden) and bool(second[1] - forbidden)


def judge(premise: Quantifier, hypothesis: Quantifier, *, nouns: Relation, predicates: Relation) -> int:
    """Return the label of the premise 'A are P' and the hypothesis 'B are Q'.

    Every noun is assumed to have members, as in common speech ('all sailors danced' implies that there are sailors).

    Args:
        premise: quantifier over A and P.
        hypothesis: quantifier over B and Q.
        nouns: relation of A to B (`sub`: A is a kind of B).
        predicates: relation of P to Q.
    """
    regions = [
        (a, b, p, q)
        for a, b, p, q in product((False, True), repeat=4)
        if ALLOWED[nouns](a, b) and ALLOWED[predicates](p, q)
    ]
    said = _statement(premise, regions, 0, 2)
    if not _compatible(said, _statement(DENIAL[hypothesis], regions, 1, 3)):
        return ENTAILMENT
    return NEUTRAL if _compatible(said, _statement(hypothesis, regions, 1, 3)) else CONTRADICTION
