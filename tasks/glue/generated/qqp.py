"""Duplicate questions: the same intent and topic in other words, or another intent, topic or direction."""

from __future__ import annotations

from tasks.glue.generated.draw import Draw, Label, Pair, words

INTENTS: tuple[tuple[str, ...], ...] = (
    ("How do I learn {}?", "What is the best way to learn {}?", "How can someone start learning {}?"),
    ("Why do people like {}?", "What makes {} so popular?", "What do people enjoy about {}?"),
    ("How much does {} cost?", "What is the price of {}?", "How expensive is {}?"),
    ("Is {} dangerous?", "What are the risks of {}?", "How safe is {}?"),
    ("Who invented {}?", "Where did {} come from?", "What is the origin of {}?"),
    ("Is {} good for my health?", "What are the health benefits of {}?", "Does {} keep you fit?"),
    ("Can children do {}?", "Is {} suitable for kids?", "At what age can a child begin {}?"),
    ("What do I need for {}?", "Which equipment does {} require?", "What gear should I buy for {}?"),
)
TOPICS = words(
    "chess, yoga, skiing, fishing, sailing, boxing, tennis, golf, surfing, climbing, archery, diving, hockey, cycling, "
    "running, painting, cooking, gardening, juggling, fencing, rowing"
)
TURNS: tuple[tuple[str, ...], ...] = (
    ("How do I get from {0} to {1}?", "What is the fastest way to reach {1} from {0}?"),
    ("Is {0} better than {1}?", "Is {1} worse than {0}?", "Does {0} have advantages over {1}?"),
    ("Should I leave {0} for {1}?", "Is it wise to move to {1} from {0}?"),
    ("Why is {0} bigger than {1}?", "Why is {1} smaller than {0}?"),
    ("How did {0} defeat {1} in the final?", "Why did {1} lose the final against {0}?"),
)
"""Questions with a direction: the same one in other words, never the reverse."""
PLACES = words("London, Paris, Boston, Berlin, Chicago, Madrid, Dublin, Sydney, Delhi, Tokyo, Cairo")


def draw_pair(draw: Draw, label: Label) -> Pair:
    """Draw two questions that ask the same (1) or not (0)."""
    if draw.chance(0.35):
        places = draw.several(PLACES, 2)
        forms = draw.pick(TURNS)
        first = draw.pick(forms)
        return first.format(*places), draw.other(forms, first).format(*(places if label else reversed(places)))
    topic, intent = draw.pick(TOPICS), draw.pick(INTENTS)
    first = draw.pick(intent)
    if label:
        return first.format(topic), draw.other(intent, first).format(topic)
    if draw.chance(0.5):
        return first.format(topic), draw.other(intent, first).format(draw.other(TOPICS, topic))
    return first.format(topic), draw.pick(draw.other(INTENTS, intent)).format(topic)
