"""Entailment between two quantified sentences, decided exactly by the regions of a Venn diagram.

Sets: A (the premise's noun), B (the hypothesis's noun), P and Q (their predicates). A world says which of the regions
(in A, in B, in P, in Q) have members. A quantified sentence forbids some regions and requires a member in one set of
regions; statements are compatible when every required set keeps a region that none of them forbids.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

Quantifier = Literal["all", "some", "no", "not all"]
Relation = Literal["equal", "sub", "super", "free"]
Region = tuple[bool, ...]
Statement = tuple[frozenset[Region], frozenset[Region]]

QUANTIFIERS: tuple[Quantifier, ...] = ("all", "some", "no", "not all")
DENIAL: dict[Quantifier, Quantifier] = {"all": "not all", "not all": "all", "some": "no", "no": "some"}
ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2


def _allowed(left: bool, right: bool, relation: Relation) -> bool:
    if relation == "equal":
        return left == right
    if relation == "sub":
        return right or not left
    return left or not right if relation == "super" else True


def _statement(quantifier: Quantifier, regions: list[Region], noun: int, predicate: int) -> Statement:
    inside = frozenset(r for r in regions if r[noun] and r[predicate])
    outside = frozenset(r for r in regions if r[noun] and not r[predicate])
    empty: frozenset[Region] = frozenset()
    return {
        "all": (outside, inside),
        "some": (empty, inside),
        "no": (inside, outside),
        "not all": (empty, outside),
    }[quantifier]


def _compatible(one: Statement, two: Statement) -> bool:
    forbidden = one[0] | two[0]
    return bool(one[1] - forbidden) and bool(two[1] - forbidden)


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
        region
        for region in product((False, True), repeat=4)
        if _allowed(region[0], region[1], nouns) and _allowed(region[2], region[3], predicates)
    ]
    said = _statement(premise, regions, 0, 2)
    if not _compatible(said, _statement(DENIAL[hypothesis], regions, 1, 3)):
        return ENTAILMENT
    return NEUTRAL if _compatible(said, _statement(hypothesis, regions, 1, 3)) else CONTRADICTION
