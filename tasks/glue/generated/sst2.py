"""Sentiment of review sentences: negation reverses it, the main clause of a contrast decides it."""

from __future__ import annotations

from tasks.glue.generated.draw import Draw, Label, Pair, words

ASPECTS = words(
    "plot, acting, script, score, dialogue, pacing, ending, humor, direction, camera work, story, cast, opening, "
    "romance, mystery, editing"
)
WORKS = words("film, movie, comedy, drama, thriller, sequel, documentary, remake")
GOOD = words(
    "brilliant, charming, clever, funny, moving, gripping, fresh, elegant, delightful, superb, witty, warm, thrilling, "
    "original, impressive, enjoyable, beautiful, honest, touching, smart"
)
BAD = words(
    "dull, boring, clumsy, stale, tedious, shallow, silly, bland, messy, awful, predictable, lifeless, ugly, "
    "pointless, weak, annoying, stupid, tiresome, dreary, fake"
)
ADJECTIVES = (BAD, GOOD)
VERBS = (words("bore, annoy, disappoint, irritate, fail"), words("please, charm, impress, amuse, entertain"))
DEGREES = words("very, really, truly, particularly, genuinely, remarkably")
NOT = words("not, never, rarely, by no means")


def draw_pair(draw: Draw, label: Label) -> Pair:
    form = draw.weighted(((_simple, 1.0), (_negated, 2.0), (_contrast, 4.0), (_hopes, 1.5)))
    return form(draw, label == 1), None


def _quality(draw: Draw, good: bool) -> str:
    """An adjective after a word that says how much, so that no negation stands right beside it."""
    return f"{draw.pick(DEGREES)} {draw.pick(ADJECTIVES[good])}"


def _simple(draw: Draw, good: bool) -> str:
    subject = draw.pick((f"the {draw.pick(ASPECTS)}", f"this {draw.pick(WORKS)}"))
    if draw.chance(0.5):
        return f"{subject} is {_quality(draw, good)} and {_quality(draw, good)}"
    return f"{subject} is {_quality(draw, good)} from start to finish"


def _negated(draw: Draw, good: bool) -> str:
    """A negated word of the other sentiment."""
    word, verb = _quality(draw, not good), draw.pick(VERBS[not good])
    aspect, work = draw.pick(ASPECTS), draw.pick(WORKS)
    forms = (
        f"the {aspect} is {draw.pick(NOT)} {word}",
        f"the {aspect} of this {work} is {draw.pick(NOT)} {word}",
        f"nobody could call this {work} {word}",
        f"there is nothing {word} about the {aspect}",
        f"the {aspect} does not {draw.pick(('really', 'often', 'ever'))} {verb}",
        f"this {work} is far from being {word}",
    )
    return draw.pick(forms)


def _clause(draw: Draw, aspect: str, good: bool) -> str:
    """A clause about one aspect, half of them negated."""
    if draw.chance(0.5):
        return f"the {aspect} is {draw.pick(NOT)} {_quality(draw, not good)}"
    return f"the {aspect} is {_quality(draw, good)}"


def _contrast(draw: Draw, good: bool) -> str:
    """Two clauses that disagree; the main clause decides."""
    one, two = draw.several(ASPECTS, 2)
    main, side = _clause(draw, one, good), _clause(draw, two, not good)
    noun = f"its {_quality(draw, not good)} {two}"
    forms = (
        f"{side}, but {main}",
        f"although {side}, {main}",
        f"{main}, even though {side}",
        f"despite {noun}, {main}",
        f"{main} in spite of {noun}",
    )
    return draw.pick(forms)


def _hopes(draw: Draw, good: bool) -> str:
    """An expectation and the outcome, which decides."""
    work, hoped, found = draw.pick(WORKS), _quality(draw, not good), _quality(draw, good)
    forms = (
        f"I expected a {hoped} {work} and got a {found} one",
        f"I got a {found} {work} where I expected a {hoped} one",
        f"what could have been a {hoped} {work} is a {found} one",
        f"it looks {hoped} at first, then turns {found}",
        f"this {work} is {found}, not {hoped}",
        f"this {work} is not {hoped} but {found}",
    )
    return draw.pick(forms)
