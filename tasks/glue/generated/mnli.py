"""Three-way inference: quantifiers over kinds and parts, comparisons, order in time; two genres of words."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.glue.generated.draw import Draw, Group, Label, Pair, groups, sentence, words
from tasks.glue.generated.logic import CONTRADICTION, ENTAILMENT, QUANTIFIERS, Quantifier, Relation, judge

PHRASES: dict[Quantifier, str] = {
    "all": "all the {}",
    "some": "some {}",
    "no": "none of the {}",
    "not all": "not all {}",
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


def draw_pair(draw: Draw, label: Label) -> Pair:
    """Draw premise and hypothesis in the words of the training genre."""
    return _pair(draw, VILLAGE, label)


def draw_mismatched_pair(draw: Draw, label: Label) -> Pair:
    """Draw premise and hypothesis in the words of a genre that is not in train."""
    return _pair(draw, OFFICE, label)


def _pair(draw: Draw, genre: Genre, label: Label) -> Pair:
    form = draw.weighted(((_quantified, 3.0), (_compared, 1.0), (_ordered, 1.0)))
    premise, hypothesis = form(draw, genre, label)
    return sentence(premise), sentence(hypothesis)


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
