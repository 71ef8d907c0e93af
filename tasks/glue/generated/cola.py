"""Acceptability: sentences of a small grammar, and the same sentences with one rule of the grammar broken."""

from __future__ import annotations

from tasks.glue.generated.draw import Draw, Label, Pair, groups, words

# singular, plural, reflexive of the singular
PEOPLE = groups(
    "king/kings/himself, queen/queens/herself, boy/boys/himself, girl/girls/herself, actress/actresses/herself, "
    "monk/monks/himself, nun/nuns/herself, uncle/uncles/himself, aunt/aunts/herself, waitress/waitresses/herself, "
    "waiter/waiters/himself, father/fathers/himself"
)
THINGS = groups(
    "key/keys, book/books, lamp/lamps, letter/letters, picture/pictures, bottle/bottles, coat/coats, clock/clocks, "
    "cup/cups, basket/baskets"
)
NEAR = words("near, behind, beside, next to, in front of")
ADVERBS = words("quietly, often, rarely, always, usually, never, gladly, soon, sometimes, secretly")
STATES = words("old, clean, broken, expensive, dusty, beautiful, missing, heavy")
BE = groups("is/are, was/were, has been/have been, looks/look, seems/seem")
FEELS = groups("admires/admire, blames/blame, likes/like, trusts/trust, hurts/hurt")
ACTS = groups("sings/sing, sleeps/sleep, laughs/laugh, works/work, dances/dance")
NEED_OBJECT = words("fetched, removed, damaged, destroyed, described, repaired, found, discovered")
NO_OBJECT = words("slept, arrived, smiled, vanished, sneezed, fainted, waited, coughed")

GOOD_ORDERS = ((0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5), (5, 0, 1, 2, 3, 4))
BAD_ORDERS = ((0, 1, 2, 4, 3, 5), (0, 3, 2, 1, 4, 5), (0, 2, 4, 1, 3, 5), (1, 0, 4, 2, 3, 5), (4, 0, 3, 1, 2, 5))
"""Positions of subject, auxiliary, adverb, verb, object and place; none of the bad ones is English in any reading."""


def draw_pair(draw: Draw, label: Label) -> Pair:
    """Draw a sentence that obeys the grammar (1) or breaks one of its rules (0)."""
    return draw.pick(RULES)(draw, label == 1), None


def _agreement(draw: Draw, ok: bool) -> str:
    """A verb agrees with its subject, not with a noun between them."""
    head, other = draw.several(THINGS, 2)
    plural = draw.below(2)
    verb = draw.pick(BE)
    between = f"{draw.pick(NEAR)} the {other[draw.below(2)]}"
    return f"the {head[plural]} {between} {verb[plural == ok]} {draw.pick(STATES)}"


def _relative(draw: Draw, ok: bool) -> str:
    """Agreement across a relative clause."""
    head, other = draw.several(PEOPLE, 2)
    plural = draw.below(2)
    clause = f"who {draw.pick(FEELS)[plural]} the {other[draw.below(2)]}"
    return f"the {head[plural]} {clause} {draw.pick(ACTS)[plural == ok]} {draw.pick(('here', 'well', 'at night'))}"


def _reflexive(draw: Draw, ok: bool) -> str:
    """A reflexive agrees with the subject of its own clause."""
    one, two = draw.pick(PEOPLE), draw.pick(PEOPLE)
    while one[2] == two[2]:
        two = draw.pick(PEOPLE)
    verb = draw.pick(("hurt", "blamed", "praised", "dressed", "admired"))
    if draw.chance(0.5):
        return f"the {one[0]} said that the {two[0]} {verb} {(two if ok else one)[2]}"
    return f"the {one[0]} near the {two[0]} {verb} {(one if ok else two)[2]}"


def _objects(draw: Draw, ok: bool) -> str:
    """Some verbs need an object, some allow none."""
    who, adverb = draw.pick(PEOPLE)[draw.below(2)], draw.pick(("suddenly", "quickly", "secretly", "finally"))
    thing = f"the {draw.pick(THINGS)[draw.below(2)]}"
    time = draw.pick(("yesterday", "last night", "on Monday", "after dinner"))
    needs = draw.chance(0.5)
    verb = draw.pick(NEED_OBJECT if needs else NO_OBJECT)
    tail = f"{thing} {time}" if needs == ok else time
    return f"the {who} {adverb} {verb} {tail}"


def _order(draw: Draw, ok: bool) -> str:
    """Subject, auxiliary, adverb, verb, object, place."""
    who, thing = draw.pick(PEOPLE)[draw.below(2)], draw.pick(THINGS)[draw.below(2)]
    parts = [f"the {who}", draw.pick(("will", "can", "may", "must")), draw.pick(ADVERBS)]
    parts += [draw.pick(("sell", "open", "carry", "paint", "hide")), f"the {thing}", draw.pick(("here", "at home"))]
    return " ".join(parts[place] for place in draw.pick(GOOD_ORDERS if ok else BAD_ORDERS))


def _polarity(draw: Draw, ok: bool) -> str:
    """'Ever' and 'any' need a negation above them."""
    one, two = draw.several(PEOPLE, 2)
    tail = draw.pick(("has ever left the house", "has bought anything", "has seen anyone", "has said anything at all"))
    yes, no = draw.pick(("the", "some", "every")), "no"
    outer, inner = (no, yes) if ok else (yes, no)
    return f"{outer} {one[0]} who likes {inner} {two[draw.below(2)] if inner != 'every' else two[0]} {tail}"


def _question(draw: Draw, ok: bool) -> str:
    """The object that is asked for leaves a gap; an embedded question is not inverted."""
    who, thing = draw.pick(PEOPLE)[0], draw.pick(THINGS)[0]
    verb = draw.pick(("buy", "find", "hide", "repair", "borrow"))
    if draw.chance(0.5):
        gap = "" if ok else f" the {thing}"
        return f"I know what the {who} will {verb}{gap} tomorrow"
    order = f"the {who} will" if ok else f"will the {who}"
    return f"nobody knows what {order} {verb} next week"


RULES = (_agreement, _agreement, _relative, _reflexive, _reflexive, _relative, _objects, _order, _polarity, _question)
