"""Pronoun resolution: one word decides what the pronoun refers to; the hypothesis replaces the pronoun."""

from __future__ import annotations

from tasks.glue.generated.draw import Draw, Label, Pair, words

PEOPLE = words("pilot, nurse, farmer, singer, waiter, banker, painter, soldier, teacher, driver, baker")
THINGS = words("trophy, lamp, drum, statue, clock, vase, globe, chair")
BOXES = words("suitcase, box, bag, trunk, drawer, basket, locker, crate")
SCHEMAS = (
    ("the {0} does not fit into the {1} because it is {2}", ("too large", "too big"), ("too small", "too narrow")),
    ("the {0} could not lift the {1} because she was {2}", ("so weak", "so tired"), ("so heavy", "so fat")),
    ("the {0} ran past the {1} because she was {2}", ("fast", "quick"), ("slow", "out of breath")),
    ("the {0} thanked the {1} because she was {2}", ("grateful", "pleased"), ("helpful", "generous")),
    ("the {0} shouted at the {1} because she was {2}", ("furious", "in a bad mood"), ("late again", "asleep")),
    ("the {0} fled from the {1} because she was {2}", ("afraid", "scared"), ("violent", "armed")),
    ("the {0} envied the {1} because she was {2}", ("unhappy", "poor"), ("famous", "rich")),
    ("the {0} begged the {1} for money because she was {2}", ("hungry", "homeless"), ("wealthy", "kind")),
)
"""Sentence, words with which the pronoun refers to the first noun, words with which it refers to the second."""


def draw_pair(draw: Draw, label: Label) -> Pair:
    """Draw a sentence with a pronoun, and the clause with the pronoun replaced correctly (1) or not (0)."""
    text, first, second = draw.pick(SCHEMAS)
    names = (draw.pick(THINGS), draw.pick(BOXES)) if " it " in text else tuple(draw.several(PEOPLE, 2))
    verb = "is" if " it " in text else "was"
    meant = draw.below(2)
    word = draw.pick((first, second)[meant])
    named = names[meant if label else 1 - meant]
    return text.format(*names, word), f"the {named} {verb} {word}"
