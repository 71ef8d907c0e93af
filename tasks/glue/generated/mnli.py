"""Three-way inference: quantifiers over kinds and parts, comparisons, order in time; two genres of words.

Entailment between two quantified sentences is decided exactly by the regions of a Venn diagram. Sets: A (the premise's
noun), B (the hypothesis's noun), P and Q (their predicates). A world says which of the regions (in A, in B, in P, in Q)
have members. A quantified sentence forbids some regions and requires a member in one set of regions; statements are
compatible when every required set keeps a region that none of them forbids.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from tasks.glue.generated.draw import Draw, Group, Label, Pair, groups, words

Quantifier = Literal["all", "some", "no", "not all"]
Relation = Literal["equal", "sub", "super", "free"]
Region = tuple[bool, ...]
Statement = tuple[set[Region], set[Region]]

PHRASES: dict[Quantifier, str] = {
    "all": "all the {}",
    "some": "some {}",
    "no": "none of the {}",
    "not all": "not all {}",
}
QUANTIFIERS = tuple(PHRASES)
DENIAL: dict[Quantifier, Quantifier] = {"all": "not all", "not all": "all", "some": "no", "no": "some"}
ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2

# whether something can be in the left set and in the right set; of two truth values, ≤ is implication
ALLOWED: dict[Relation, Callable[[bool, bool], bool]] = {
    "equal": operator.eq,
    "sub": operator.le,
    "super": operator.ge,
    "free": lambda left, right: True,
}


@dataclass(frozen=True)
class Genre:
    """The words of one genre; nouns and predicates are pairs of a narrow and a wide one."""

    nouns: tuple[Group, ...]
    predicates: tuple[Group, ...]
    names: Group
    grades: tuple[Group, ...]
    acts: Group


VILLAGE = Genre(
    nouns=groups(
        "young sailors/sailors, old farmers/farmers, tired nurses/nurses, rich merchants/merchants, "
        "local fishermen/fishermen, hungry soldiers/soldiers"
    ),
    predicates=groups(
        "bought red roses/bought flowers, ate ripe apples/ate fruit, played the violin/played an instrument, "
        "owned a black horse/owned an animal, painted the chapel/painted a building, danced in the square/danced, "
        "sang loudly/sang"
    ),
    names=words("Anna, Peter, Mary, John, Laura, Henry, Susan, David"),
    grades=groups("taller/shorter, older/younger, richer/poorer, stronger/weaker"),
    acts=words("left, arrived, woke up, went home, ate dinner"),
)
OFFICE = Genre(
    nouns=groups(
        "new engineers/engineers, senior lawyers/lawyers, busy managers/managers, foreign clients/clients, "
        "retired bankers/bankers"
    ),
    predicates=groups(
        "drove a blue truck/drove a vehicle, signed the long contract/signed a document, "
        "drank green tea/drank something, visited the main office/visited an office, worked until midnight/worked, "
        "complained politely/complained"
    ),
    names=words("Carol, George, Linda, Robert, Nancy, Kevin, Diane, Philip"),
    grades=groups("taller/shorter, faster/slower, heavier/lighter, smarter/duller"),
    acts=words("started, stopped, called back, resigned, applied"),
)


def draw_mismatched_pair(draw: Draw, label: Label) -> Pair:
    """Draw premise and hypothesis in the words of a genre that is not in train."""
    return draw_pair(draw, label, OFFICE)


def draw_pair(draw: Draw, label: Label, genre: Genre = VILLAGE) -> Pair:
    """Draw premise and hypothesis in the words of the training genre."""
    form = draw.weighted(((_quantified, 3.0), (_compared, 1.0), (_ordered, 1.0)))
    return form(draw, genre, label)


def _related(draw: Draw, phrases: tuple[Group, ...]) -> tuple[str, str, Relation]:
    """Draw two phrases, and the relation of the first to the second."""
    narrow, wide = draw.pick(phrases)
    relations: tuple[Relation, ...] = ("equal", "sub", "sub", "super", "super", "free")
    relation = draw.pick(relations)
    if relation == "equal":
        word = draw.pick((narrow, wide))
        return word, word, relation
    if relation == "free":
        return draw.pick((narrow, wide)), draw.pick(draw.other(phrases, (narrow, wide))), relation
    return (narrow, wide, relation) if relation == "sub" else (wide, narrow, relation)


def _quantified(draw: Draw, genre: Genre, label: Label) -> tuple[str, str]:
    while True:
        before, after = draw.pick(QUANTIFIERS), draw.pick(QUANTIFIERS)
        noun, noun2, nouns = _related(draw, genre.nouns)
        act, act2, predicates = _related(draw, genre.predicates)
        if judge(before, after, nouns=nouns, predicates=predicates) == label:
            return f"{PHRASES[before].format(noun)} {act}", f"{PHRASES[after].format(noun2)} {act2}"


def _compared(draw: Draw, genre: Genre, label: Label) -> tuple[str, str]:
    names = draw.several(genre.names, 3)
    up, down = draw.pick(genre.grades)
    if draw.chance(0.5):
        up, down = down, up
    return _directed(draw, label, names, f"is {up} than", f"is {down} than")


def _ordered(draw: Draw, genre: Genre, label: Label) -> tuple[str, str]:
    names = draw.several(genre.names, 3)
    act = draw.pick(genre.acts)
    early, late = draw.pick((("before", "after"), ("after", "before")))
    return _directed(draw, label, names, f"{act} {early}", f"{act} {late}")


def _directed(draw: Draw, label: Label, names: list[str], relation: str, reverse: str) -> tuple[str, str]:
    """A is taller than B: that B is shorter than A follows, that A is shorter than B contradicts."""
    a, b, c = names
    premise = f"{a} {relation} {b}"
    if label == ENTAILMENT:
        return premise, f"{b} {reverse} {a}"
    if label == CONTRADICTION:
        return premise, draw.pick((f"{a} {reverse} {b}", f"{b} {relation} {a}"))
    return premise, draw.pick((f"{c} {reverse} {a}", f"{b} {reverse} {c}"))


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
    """Return the label of the premise 'A are P' and the hypothesis 'B are Q' with these quantifiers.

    Every noun is assumed to have members, as in common speech ('all sailors danced' implies that there are sailors).
    `nouns` is the relation of A to B (`sub`: A is a kind of B), `predicates` that of P to Q.
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
