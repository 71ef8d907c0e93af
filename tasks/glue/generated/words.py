"""Words that several tasks share; words of one group are synonyms."""

from __future__ import annotations

from tasks.glue.generated.draw import Draw

Group = tuple[str, ...]

PERSONS: tuple[Group, ...] = (
    ("doctor", "physician"),
    ("lawyer", "attorney"),
    ("teacher", "instructor"),
    ("writer", "author"),
    ("reporter", "journalist"),
    ("senator", "lawmaker"),
    ("actor",),
    ("thief", "robber"),
    ("priest", "clergyman"),
    ("visitor", "guest"),
    ("banker", "financier"),
    ("sailor",),
    ("judge",),
    ("mayor",),
    ("painter",),
    ("pilot",),
    ("butcher",),
    ("farmer",),
    ("nurse",),
    ("chef",),
)

DEEDS: tuple[Group, ...] = (
    ("hired", "recruited"),
    ("fired", "dismissed"),
    ("praised", "applauded"),
    ("helped", "assisted"),
    ("phoned", "called"),
    ("warned", "cautioned"),
    ("saved", "rescued"),
    ("accused", "blamed"),
    ("welcomed", "greeted"),
    ("tricked", "fooled"),
    ("questioned", "interrogated"),
    ("attacked", "assaulted"),
    ("paid", "compensated"),
    ("followed", "trailed"),
)
"""What one person did to another; the past form is also the participle."""

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
CITIES = ("London", "Paris", "Boston", "Berlin", "Chicago", "Madrid", "Dublin", "Sydney", "Oslo", "Denver")


def two(draw: Draw, groups: tuple[Group, ...]) -> tuple[Group, Group]:
    """Draw two different groups."""
    first, second = draw.several(groups, 2)
    return first, second
